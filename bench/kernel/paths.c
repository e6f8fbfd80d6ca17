/*
 * What the kernel alone takes for each way of moving the pages of a tmpfs file through a loopback connection into another:
 * the floor under any program, and the reason for the ways that Ballast does not go.
 *
 *     cc -O2 -pthread -o /tmp/paths bench/kernel/paths.c && /tmp/paths [FOLDER [MIB [ROUNDS]]]
 *
 * Processor seconds for each GiB, the least of several rounds in turns: other work on the machine only adds to them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum { MIB = 1 << 20, CHUNK = MIB };

static size_t total = 1024UL * MIB;
static char source[4096], target[4096];

static void check(int good, const char *what) {
  if (good) return;
  perror(what);
  exit(1);
}

static double cpu(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void *buffer(void) {
  void *at = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  check(at != MAP_FAILED, "mmap");
  return at;
}

static void write_all(int to, const char *from, size_t bytes, int flags) {
  while (bytes > 0) {
    ssize_t sent = send(to, from, bytes, flags);
    if (sent < 0 && (errno == ENOBUFS || errno == EINTR)) continue;
    check(sent >= 0, "send");
    from += sent;
    bytes -= sent;
  }
}

/* ---- senders ---- */

static void send_read(int file, int to) {
  char *hot = buffer();
  for (size_t at = 0; at < total; at += CHUNK) {
    check(pread(file, hot, CHUNK, at) == CHUNK, "pread");
    write_all(to, hot, CHUNK, 0);
  }
}

static void send_mapped(int file, int to) {
  char *window = NULL;
  for (size_t at = 0; at < total; at += CHUNK) {
    void *placed = mmap(window, CHUNK, PROT_READ, MAP_SHARED | (window ? MAP_FIXED : 0), file, at);
    check(placed != MAP_FAILED, "mmap");
    window = placed;
    check(madvise(window, CHUNK, MADV_POPULATE_READ) == 0, "MADV_POPULATE_READ");
    write_all(to, window, CHUNK, 0);
  }
}

static void send_sendfile(int file, int to) {
  off_t at = 0;
  while ((size_t)at < total) check(sendfile(to, file, &at, CHUNK) > 0, "sendfile");
}

static void send_splice(int file, int to) {
  int ends[2];
  check(pipe(ends) == 0, "pipe");
  check(fcntl(ends[1], F_SETPIPE_SZ, CHUNK) >= 0, "F_SETPIPE_SZ");
  loff_t at = 0;
  while ((size_t)at < total) {
    ssize_t got = splice(file, &at, ends[1], NULL, CHUNK, SPLICE_F_MOVE);
    check(got > 0, "splice in");
    while (got > 0) {
      ssize_t gone = splice(ends[0], NULL, to, NULL, got, SPLICE_F_MOVE | SPLICE_F_MORE);
      check(gone > 0, "splice out");
      got -= gone;
    }
  }
}

static void send_zerocopy(int file, int to) {
  int one = 1;
  check(setsockopt(to, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one) == 0, "SO_ZEROCOPY");
  char *hot[8];
  for (int n = 0; n < 8; n++) hot[n] = buffer();
  for (size_t at = 0, n = 0; at < total; at += CHUNK, n++) {
    check(pread(file, hot[n % 8], CHUNK, at) == CHUNK, "pread");
    write_all(to, hot[n % 8], CHUNK, MSG_ZEROCOPY);
    char control[512];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    while (recvmsg(to, &message, MSG_ERRQUEUE | MSG_DONTWAIT) >= 0) message.msg_controllen = sizeof control;
  }
}

/* ---- receivers ---- */

static size_t receive(int from, char *into, size_t bytes) {
  size_t got = 0;
  while (got < bytes) {
    ssize_t count = recv(from, into + got, bytes - got, 0);
    check(count >= 0, "recv");
    if (count == 0) break;
    got += count;
  }
  return got;
}

static void take_only(int file, int from) {
  (void)file;
  char *hot = buffer();
  while (receive(from, hot, CHUNK) > 0);
}

static void take_written(int file, int from) {
  char *hot = buffer();
  for (size_t at = 0; at < total; at += CHUNK) {
    check(receive(from, hot, CHUNK) == CHUNK, "recv");
    check(pwrite(file, hot, CHUNK, at) == CHUNK, "pwrite");
  }
}

static void take_written_and_read_back(int file, int from) {
  char *hot = buffer();
  for (size_t at = 0; at < total; at += CHUNK) {
    check(receive(from, hot, CHUNK) == CHUNK, "recv");
    check(pwrite(file, hot, CHUNK, at) == CHUNK, "pwrite");
    check(pread(file, hot, CHUNK, at) == CHUNK, "pread");
  }
}

/* The bytes are in their place, and can be read there. */
static void take_mapped(int file, int from) {
  char *window = NULL;
  for (size_t at = 0; at < total; at += CHUNK) {
    void *placed = mmap(window, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | (window ? MAP_FIXED : 0), file, at);
    check(placed != MAP_FAILED, "mmap");
    window = placed;
    check(madvise(window, CHUNK, MADV_POPULATE_WRITE) == 0, "MADV_POPULATE_WRITE");
    check(receive(from, window, CHUNK) == CHUNK, "recv");
  }
}

static void *allocate(void *file) {
  for (size_t at = 0; at < total; at += CHUNK) check(fallocate((int)(intptr_t)file, 0, at, CHUNK) == 0, "fallocate");
  return NULL;
}

/* Pages are made by another thread, ahead of the writes. */
static void take_allocated_ahead(int file, int from) {
  pthread_t ahead;
  check(pthread_create(&ahead, NULL, allocate, (void *)(intptr_t)file) == 0, "pthread_create");
  take_written(file, from);
  pthread_join(ahead, NULL);
}

typedef struct {
  const char *what;
  void (*send)(int file, int to);
  void (*take)(int file, int from);
  int warm;  /* whether the target's pages are there already */
  int bytes; /* of each kernel buffer, 0 as the kernel has it */
} Way;

static const Way WAYS[] = {
    {"pread, send; recv", send_read, take_only, 1, 0},
    {"pread, send; recv, buffers of 256 KiB", send_read, take_only, 1, 256 << 10},
    {"pread, send; recv, buffers of 1 MiB", send_read, take_only, 1, 1 << 20},
    {"pread, send; recv, buffers of 4 MiB", send_read, take_only, 1, 4 << 20},
    {"mapped, send; recv", send_mapped, take_only, 1, 0},
    {"sendfile; recv", send_sendfile, take_only, 1, 0},
    {"splice through a pipe of 1 MiB; recv", send_splice, take_only, 1, 0},
    {"pread, send MSG_ZEROCOPY; recv", send_zerocopy, take_only, 1, 0},
    {"warm: recv, pwrite", send_read, take_written, 1, 0},
    {"warm: recv, pwrite, pread", send_read, take_written_and_read_back, 1, 0},
    {"warm: recv into populated pages", send_read, take_mapped, 1, 0},
    {"cold: recv, pwrite", send_read, take_written, 0, 0},
    {"cold: recv, pwrite, pread", send_read, take_written_and_read_back, 0, 0},
    {"cold: recv into populated pages", send_read, take_mapped, 0, 0},
    {"cold: recv, pwrite, fallocate ahead in a thread", send_read, take_allocated_ahead, 0, 0},
};
enum { COUNT = sizeof WAYS / sizeof WAYS[0] };

static double sending[COUNT], taking[COUNT];

static void run(int n) {
  const Way *way = &WAYS[n];
  int file = open(target, O_RDWR | O_CREAT, 0600);
  check(file >= 0, target);
  if (!way->warm) check(ftruncate(file, 0) == 0, "ftruncate");
  check(ftruncate(file, total) == 0, "ftruncate");
  if (way->warm) allocate((void *)(intptr_t)file);

  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  if (way->bytes) setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &way->bytes, sizeof way->bytes);
  check(bind(listener, (struct sockaddr *)&at, length) == 0 && listen(listener, 1) == 0, "listen");
  getsockname(listener, (struct sockaddr *)&at, &length);

  pid_t child = fork();
  check(child >= 0, "fork");
  if (child == 0) {
    int from = open(source, O_RDONLY);
    int to = socket(AF_INET, SOCK_STREAM, 0);
    if (way->bytes) setsockopt(to, SOL_SOCKET, SO_SNDBUF, &way->bytes, sizeof way->bytes);
    check(connect(to, (struct sockaddr *)&at, length) == 0, "connect");
    way->send(from, to);
    _exit(0);
  }
  double before = cpu();
  int from = accept(listener, NULL, NULL);
  way->take(file, from);
  double taken = cpu() - before;
  int status;
  struct rusage used;
  check(wait4(child, &status, 0, &used) == child && status == 0, way->what);
  double sent =
      used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
  if (sending[n] == 0 || sent < sending[n]) sending[n] = sent;
  if (taking[n] == 0 || taken < taking[n]) taking[n] = taken;
  close(from);
  close(listener);
  close(file);
}

int main(int argc, char **argv) {
  const char *folder = argc > 1 ? argv[1] : "/dev/shm";
  if (argc > 2) total = strtoul(argv[2], NULL, 10) * MIB;
  int rounds = argc > 3 ? atoi(argv[3]) : 5;
  snprintf(source, sizeof source, "%s/paths-%d.source", folder, getpid());
  snprintf(target, sizeof target, "%s/paths-%d.target", folder, getpid());
  int file = open(source, O_RDWR | O_CREAT | O_EXCL, 0600);
  check(file >= 0, source);
  char *hot = buffer();
  for (size_t at = 0; at < total; at += CHUNK) {
    memset(hot, 1 + at / CHUNK % 255, CHUNK);
    check(pwrite(file, hot, CHUNK, at) == CHUNK, "pwrite");
  }
  for (int round = 0; round < rounds; round++)
    for (int n = 0; n < COUNT; n++) run(n);
  double gib = total / (1024.0 * MIB);
  printf("| way | sender, s/GiB | receiver, s/GiB | both |\n| --- | ---: | ---: | ---: |\n");
  for (int n = 0; n < COUNT; n++)
    printf("| %s | %.2f | %.2f | %.2f |\n", WAYS[n].what, sending[n] / gib, taking[n] / gib,
           (sending[n] + taking[n]) / gib);
  unlink(source);
  unlink(target);
  return 0;
}

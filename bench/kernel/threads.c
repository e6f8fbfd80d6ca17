/*
 * What the kernel alone takes when several threads store pages into one file of a tmpfs, as channels do, in each way that
 * there is. write(2) holds the file's lock, so that its threads wait for each other; what goes through a mapping does not.
 *
 *     cc -O2 -pthread -o /tmp/threads bench/kernel/threads.c && /tmp/threads [FOLDER]
 *
 * Each thread claims stretches of 8 MiB in turn, and stores them in pieces of 256 KiB from memory that is in the cache. All
 * ways read back what they have stored. Wall seconds a GiB, the least of three rounds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

enum { PIECE = 256 << 10, STRETCH = 8 << 20, MOST_THREADS = 16, ROUNDS = 3 };
static const size_t FILE_BYTES = (size_t)2 << 30;

enum way { PWRITE, MAPPED, MAPPED_WINDOWS, UFFD };
static const char *const NAMES[] = {"pwrite, pread", "populate, copy", "populate, copy, windows of 8 MiB", "UFFDIO_COPY"};

static int fd;
static char *whole;
static int uffd = -1;
static enum way way;
static _Atomic size_t cursor;

static void die(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void store(char *piece, size_t at, char *window) {
  switch (way) {
  case PWRITE:
    if (pwrite(fd, piece, PIECE, (off_t)at) != PIECE) die("pwrite");
    if (pread(fd, piece, PIECE, (off_t)at) != PIECE) die("pread");
    return;
  case MAPPED:
  case MAPPED_WINDOWS: {
    char *to = way == MAPPED ? whole + at : window + at % STRETCH;
    if (madvise(to, PIECE, MADV_POPULATE_WRITE) != 0) die("madvise");
    memcpy(to, piece, PIECE);
    memcpy(piece, to, PIECE);
    return;
  }
  case UFFD: {
    struct uffdio_copy copy = {.dst = (unsigned long)(whole + at), .src = (unsigned long)piece, .len = PIECE};
    if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) die("UFFDIO_COPY");
    memcpy(piece, whole + at, PIECE);
    return;
  }
  }
}

static void *run(void *unused) {
  (void)unused;
  char *piece = aligned_alloc(4096, PIECE);
  memset(piece, 7, PIECE);
  char *window = NULL;
  for (;;) {
    size_t start = atomic_fetch_add(&cursor, STRETCH);
    if (start >= FILE_BYTES) break;
    if (way == MAPPED_WINDOWS) {
      int flags = MAP_SHARED | MAP_NORESERVE | (window == NULL ? 0 : MAP_FIXED);
      window = mmap(window, STRETCH, PROT_READ | PROT_WRITE, flags, fd, (off_t)start);
      if (window == MAP_FAILED) die("mmap");
    }
    for (size_t at = start; at < start + STRETCH; at += PIECE) store(piece, at, window);
  }
  if (window != NULL) munmap(window, STRETCH);
  free(piece);
  return NULL;
}

static double once(int threads, bool cold) {
  if (cold && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)FILE_BYTES) != 0) die("fallocate");
  whole = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (whole == MAP_FAILED) die("mmap");
  if (way == UFFD) {
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (uffd < 0) return -1;
    struct uffdio_api api = {.api = UFFD_API, .features = 0};
    if (ioctl(uffd, UFFDIO_API, &api) != 0) return -1;
    struct uffdio_register range = {.range = {(unsigned long)whole, FILE_BYTES}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &range) != 0) return -1;
  }
  cursor = 0;
  pthread_t ids[MOST_THREADS];
  double began = now();
  for (int i = 0; i < threads; i++)
    if (pthread_create(&ids[i], NULL, run, NULL) != 0) die("pthread_create");
  for (int i = 0; i < threads; i++) pthread_join(ids[i], NULL);
  double seconds = now() - began;
  munmap(whole, FILE_BYTES);
  if (uffd >= 0) close(uffd);
  uffd = -1;
  return seconds;
}

int main(int count, char **arguments) {
  const char *folder = count > 1 ? arguments[1] : "/dev/shm";
  fd = open(folder, O_TMPFILE | O_RDWR, 0600);
  if (fd < 0 || ftruncate(fd, (off_t)FILE_BYTES) != 0) die(folder);
  long cores = sysconf(_SC_NPROCESSORS_ONLN);
  printf("| way | %s |\n| --- |", "1 thread, s/GiB | 2 | 4 | 8 | 16");
  for (int threads = 1; threads <= MOST_THREADS; threads *= 2) printf(" ---: |");
  printf("\n");
  for (int cold = 1; cold >= 0; cold--) {
    for (way = PWRITE; way <= UFFD; way++) {
      // Pages that are there cannot be put there.
      if (way == UFFD && !cold) continue;
      printf("| %s: %s |", cold ? "cold" : "warm", NAMES[way]);
      for (int threads = 1; threads <= MOST_THREADS; threads *= 2) {
        double least = -1;
        for (int round = 0; round < ROUNDS && (threads <= 2 * cores || threads <= 4); round++) {
          double seconds = once(threads, cold);
          if (seconds >= 0 && (least < 0 || seconds < least)) least = seconds;
        }
        if (least < 0) printf(" – |");
        else printf(" %.2f |", least / ((double)FILE_BYTES / (1 << 30)));
        fflush(stdout);
      }
      printf("\n");
    }
  }
  return 0;
}

/*
 * What it costs the kernel to copy pages of a tmpfs file to and from memory that begins at this or that byte of a page. The C
 * library's malloc gives large memory out at byte 16.
 *
 *     cc -O2 -o /tmp/alignment bench/kernel/alignment.c && /tmp/alignment [FOLDER]
 *
 * GB/s, the most of five rounds, in pieces of 256 KiB.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 256 << 10, PIECES = 2048, ROUNDS = 5 };
static const int PLACES[] = {0, 16, 32, 48, 64, 128, 1024, 2048};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double rate(int fd, char *memory, int writes) {
  double best = 0;
  for (int round = 0; round < ROUNDS; round++) {
    double began = now();
    for (int piece = 0; piece < PIECES; piece++) {
      off_t at = (off_t)piece * PIECE;
      ssize_t done = writes ? pwrite(fd, memory, PIECE, at) : pread(fd, memory, PIECE, at);
      if (done != PIECE) {
        perror(writes ? "pwrite" : "pread");
        exit(1);
      }
    }
    double found = (double)PIECES * PIECE / (now() - began) / 1e9;
    if (found > best) best = found;
  }
  return best;
}

int main(int count, char **arguments) {
  const char *folder = count > 1 ? arguments[1] : "/dev/shm";
  int fd = open(folder, O_TMPFILE | O_RDWR, 0600);
  char *memory = aligned_alloc(4096, PIECE + 4096);
  if (fd < 0 || memory == NULL) {
    perror(folder);
    return 1;
  }
  memset(memory, 7, PIECE + 4096);
  rate(fd, memory, 1);
  printf("| first byte's place in its page | pread, GB/s | pwrite, GB/s |\n| ---: | ---: | ---: |\n");
  for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
    printf("| %d | %.1f | %.1f |\n", PLACES[i], rate(fd, memory + PLACES[i], 0), rate(fd, memory + PLACES[i], 1));
  return 0;
}

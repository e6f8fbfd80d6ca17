/*
 * What the kernel alone takes for the steps that come before the first byte of a transfer: the floor under Ballast's.
 *
 *     cc -O3 -o /tmp/steps bench/kernel/steps.c && /tmp/steps holes|pread|mmap FILE
 *
 * holes: where the runs of data of a file are (SEEK_DATA and SEEK_HOLE, two calls a run). pread, mmap: whether the bytes
 * of its data are all zeros, copied out or where they are. One line: the seconds that it took.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* Bytes read at a time, which stay in the cache; and bytes mapped at a time. */
enum { CHUNK = 256 << 10, WINDOW = 64 << 20 };

static void check(int good, const char *what) {
  if (good) return;
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec + at.tv_nsec / 1e9;
}

#ifdef __x86_64__
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static uint64_t any(const uint64_t *words, size_t count) {
  uint64_t bits = 0;
  for (size_t at = 0; at < count; at++) bits |= words[at];
  return bits;
}

static long holes(int file) {
  long runs = 0;
  for (off_t data = lseek(file, 0, SEEK_DATA); data >= 0; runs++) {
    off_t hole = lseek(file, data, SEEK_HOLE);
    data = lseek(file, hole, SEEK_DATA);
  }
  return runs;
}

static uint64_t by_pread(int file) {
  uint64_t bits = 0;
  char *chunk = aligned_alloc(4096, CHUNK);
  check(chunk != NULL, "aligned_alloc");
  memset(chunk, 1, CHUNK);
  for (off_t data = lseek(file, 0, SEEK_DATA); data >= 0;) {
    off_t end = lseek(file, data, SEEK_HOLE);
    for (off_t at = data; at < end;) {
      ssize_t got = pread(file, chunk, end - at < CHUNK ? end - at : CHUNK, at);
      check(got > 0, "pread");
      bits |= any((uint64_t *)chunk, got / 8);
      at += got;
    }
    data = lseek(file, end, SEEK_DATA);
  }
  return bits;
}

static uint64_t by_mmap(int file) {
  uint64_t bits = 0;
  for (off_t data = lseek(file, 0, SEEK_DATA); data >= 0;) {
    off_t end = lseek(file, data, SEEK_HOLE);
    for (off_t at = data & -4096; at < end; at += WINDOW) {
      size_t bytes = end - at < WINDOW ? end - at : WINDOW;
      char *window = mmap(NULL, bytes, PROT_READ, MAP_SHARED, file, at);
      check(window != MAP_FAILED, "mmap");
      madvise(window, bytes, MADV_POPULATE_READ);
      bits |= any((uint64_t *)window, bytes / 8);
      munmap(window, bytes);
    }
    data = lseek(file, end, SEEK_DATA);
  }
  return bits;
}

int main(int count, char **arguments) {
  if (count != 3) {
    fprintf(stderr, "usage: steps holes|pread|mmap FILE\n");
    return 2;
  }
  int file = open(arguments[2], O_RDONLY);
  check(file >= 0, arguments[2]);
  double began = now();
  int good = strcmp(arguments[1], "holes") == 0   ? holes(file) > 0
             : strcmp(arguments[1], "pread") == 0 ? by_pread(file) == 0
                                                  : by_mmap(file) == 0;
  double seconds = now() - began;
  if (!good) {
    fprintf(stderr, "%s is not what was expected\n", arguments[2]);
    return 1;
  }
  printf("%.6f\n", seconds);
  return 0;
}

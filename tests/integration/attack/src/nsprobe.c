/* nsprobe SECONDS: look, as often as it goes, at every process that appears in this /proc but itself, and try to reach
 * through it what is not the container's. A line for whatever worked:
 *
 *   exe PID DEVICE:INODE TARGET       the program could be opened (its file's numbers are the host's)
 *   writable PID DEVICE:INODE TARGET  ... and later opened for writing, once nobody executed it any more
 *   link PID NAME TARGET              root, cwd or a descriptor from 3 on could be read
 *   mem PID TARGET                    its memory could be opened; TARGET is its program
 *   traced PID TARGET                 it could be traced
 *   report PID BYTES                  a pipe at descriptor 3 could be opened, and took so many bytes of 1 MiB
 *
 * "rounds N looked M" at the end says how often it looked, and how many processes it saw. It disturbs what it finds, so
 * that it runs only as the first process of a pid namespace or as a child of it. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HELD 256
#define FIRST_FD 3
#define LAST_FD 40

static struct { int fd, pid; char target[256]; } held[HELD];
static int held_count;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int read_name(int pid, const char *name, char *target, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    ssize_t length = readlink(path, target, size - 1);
    target[length < 0 ? 0 : length] = 0;
    return length >= 0;
}

static void say_file(const char *what, int pid, int fd, const char *target) {
    struct stat status;
    if (fstat(fd, &status)) return;
    printf("%s %d %u:%lu %s\n", what, pid, (unsigned)status.st_dev, (unsigned long)status.st_ino, target);
}

static int is_known(const char *target) {
    for (int i = 0; i < held_count; i++)
        if (!strcmp(held[i].target, target)) return 1;
    return 0;
}

static void look_at_program(int pid) {
    char path[64], target[256];
    if (!read_name(pid, "exe", target, sizeof target) || is_known(target)) return;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    say_file("exe", pid, fd, target);
    if (held_count == HELD) {
        close(fd);
        return;
    }
    held[held_count].fd = fd;
    held[held_count].pid = pid;
    strcpy(held[held_count++].target, target);
}

/* What was executed is busy as long as it runs: tried again in each round. Nothing is written, except to what is no file
 * of any file system. */
static void try_to_write(void) {
    for (int i = 0; i < held_count; i++) {
        char path[64];
        if (held[i].fd < 0) continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", held[i].fd);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0) continue;
        if (strncmp(held[i].target, "/memfd:", 7) || pwrite(fd, "x", 1, 0) == 1)
            say_file("writable", held[i].pid, fd, held[i].target);
        close(fd);
        close(held[i].fd);
        held[i].fd = -1;
    }
}

static void look_at_links(int pid) {
    char name[32], target[256];
    for (int i = 0; i < 2; i++) {
        const char *link = i ? "cwd" : "root";
        if (read_name(pid, link, target, sizeof target) && target[0] != '/') printf("link %d %s %s\n", pid, link, target);
    }
    for (int fd = FIRST_FD; fd <= LAST_FD; fd++) {
        snprintf(name, sizeof name, "fd/%d", fd);
        if (read_name(pid, name, target, sizeof target)) printf("link %d %s %s\n", pid, name, target);
    }
}

static void look_at_memory(int pid) {
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        read_name(pid, "exe", target, sizeof target);
        printf("mem %d %s\n", pid, target);
        close(fd);
    }
}

static void flood_report(int pid) {
    static char zeros[1 << 20];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/3", pid);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return;
    long written = 0;
    double end = now() + 0.2;
    memset(zeros, 'F', sizeof zeros);
    while (written < (long)sizeof zeros && now() < end) {
        ssize_t count = write(fd, zeros, sizeof zeros - written);
        if (count > 0) written += count;
        else if (errno != EAGAIN) break;
    }
    printf("report %d %ld\n", pid, written);
    close(fd);
}

static void trace(int pid) {
    char target[256];
    int status;
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) return;
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) == 0 && waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
        read_name(pid, "exe", target, sizeof target);
        printf("traced %d %s\n", pid, target);
        ptrace(PTRACE_DETACH, pid, 0, 0);
    }
}

int main(int count, char **arguments) {
    if (count != 2 || (getpid() != 1 && getppid() > 1)) return 2;
    long rounds = 0, looked = 0;
    double end = now() + atof(arguments[1]);
    int self = getpid();
    setvbuf(stdout, 0, _IOLBF, BUFSIZ);
    for (; now() < end; rounds++) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        while (proc && (entry = readdir(proc))) {
            int pid = atoi(entry->d_name);
            if (!isdigit(entry->d_name[0]) || pid == self) continue;
            looked++;
            look_at_program(pid);
            look_at_links(pid);
            flood_report(pid);
            look_at_memory(pid);
            trace(pid);
        }
        if (proc) closedir(proc);
        try_to_write();
    }
    printf("rounds %ld looked %ld\n", rounds, looked);
    return 0;
}

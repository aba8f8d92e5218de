/* turns.c - programs measured in turn, A B A B, each run a process of its own: medians of wall time, processor time and
 * peak memory, of what the programs say about themselves, and ratios to the first.
 * Usage: turns [-r ROUNDS] [-t SECONDS] [-o FILE] [-v] < LIST
 * others_s is the processor time of everybody else on the machine meanwhile, stolen_s what a virtual machine wanted and
 * did not get: much of either, and the figures say little.
 * A line of LIST: name, files to have in the page cache (spaces between; may be empty), command; tabs between the
 * three. The command is what may follow "exec" in a shell. A line "KEY NUMBER" that it prints becomes a column KEY.
 * What ends with another status than 0, or takes longer than SECONDS, is reported and left out from then on.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_PROGRAMS = 32,
    MAX_ROUNDS = 99,
    MAX_KEYS = 16,
    KEY_SIZE = 24,
    WALL = 0,
    PROCESSOR,
    OTHERS,
    STOLEN,
    PEAK,
    N_OWN
};

typedef struct program {
    char *name, *files, *command;
    int done; /* rounds */
    bool failed;
    double values[MAX_KEYS][MAX_ROUNDS];
    bool has[MAX_KEYS];
} program;

static char keys[MAX_KEYS][KEY_SIZE] = {"wall_s", "cpu_s", "others_s", "stolen_s", "peak_mib"};
static int n_keys = N_OWN;
static int rounds = 3, limit_s = 600;
static bool verbose;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor time that the whole machine has spent since it started, and what it was kept from. */
static double machine_seconds(double *stolen)
{
    *stolen = 0;
    unsigned long long user, nice, system, idle, wait, irq, soft, steal;
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return 0;
    const int n = fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq,
                         &soft, &steal);
    fclose(f);
    if (n != 8) return 0;
    *stolen = (double)steal / (double)sysconf(_SC_CLK_TCK);
    return (double)(user + nice + system + irq + soft) / (double)sysconf(_SC_CLK_TCK);
}

/* ---- One run ---- */

static void forget_file(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), close(fd);
}

static void read_file(const char *path)
{
    static char buffer[1 << 20];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && read(fd, buffer, sizeof buffer) > 0) {}
    if (fd >= 0) close(fd);
}

/* Calls on every file of a program's list without the '-' of those that are to be cold, which go to `cold`. */
static void each_file(const char *files, void (*warm)(const char *path), void (*cold)(const char *path))
{
    char *copy = strdup(files), *state = NULL;
    for (char *f = copy ? strtok_r(copy, " ", &state) : NULL; f; f = strtok_r(NULL, " ", &state))
        if (*f == '-')
            cold(f + 1);
        else
            warm(f);
    free(copy);
}

static double listed_bytes; /* of all programs' files */

static void count_file(const char *path)
{
    struct stat st;
    if (!stat(path, &st)) listed_bytes += (double)st.st_size;
}

/* Where not all files fit into the cache those of others make way first: the kernel keeps what was read twice rather
 * than what was read last. */
static void warm(const program *all, int n, const program *p)
{
    const double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < n && listed_bytes > .7 * memory; i++)
        if (&all[i] != p) each_file(all[i].files, forget_file, forget_file);
    each_file(p->files, read_file, forget_file);
}

static int key_index(const char *key)
{
    for (int i = 0; i < n_keys; i++)
        if (!strcmp(keys[i], key)) return i;
    if (n_keys == MAX_KEYS) return -1;
    snprintf(keys[n_keys], KEY_SIZE, "%s", key);
    return n_keys++;
}

static void take(program *p, int i, double value)
{
    if (i < 0) return;
    p->values[i][p->done] = value;
    p->has[i] = true;
}

static void take_lines(program *p, FILE *from)
{
    char line[4096], key[KEY_SIZE];
    double value;
    while (fgets(line, sizeof line, from)) {
        if (verbose) fprintf(stderr, "  %s: %s", p->name, line);
        if (sscanf(line, "%23[a-z0-9_] %lf", key, &value) == 2) take(p, key_index(key), value);
    }
}

static pid_t start(const char *command, FILE **output)
{
    char line[8192];
    int ends[2];
    snprintf(line, sizeof line, "exec %s", command);
    if (pipe(ends)) return -1;
    const pid_t pid = fork();
    if (!pid) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]), close(ends[1]);
        alarm((unsigned)limit_s); /* outlives exec */
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    *output = fdopen(ends[0], "r");
    return pid;
}

static void run(program *all, int n, program *p)
{
    FILE *output = NULL;
    struct rusage used;
    int status = 0;
    warm(all, n, p);
    double stolen_before, stolen;
    const double machine_before = machine_seconds(&stolen_before), begin = seconds();
    const pid_t pid = start(p->command, &output);
    if (pid > 0 && output) take_lines(p, output);
    while (pid > 0 && wait4(pid, &status, 0, &used) < 0 && errno == EINTR) {}
    const double wall = seconds() - begin;
    if (output) fclose(output);
    if (pid < 0 || status) {
        if (pid > 0 && WIFSIGNALED(status))
            printf("%s: ended by signal %d after %.1f s, left out\n", p->name, WTERMSIG(status), wall);
        else
            printf("%s: failed with status %d, left out\n", p->name, pid < 0 ? -1 : WEXITSTATUS(status));
        p->failed = true;
        return;
    }
    take(p, WALL, wall);
    const double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                       1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    const double others = machine_seconds(&stolen) - machine_before - cpu;
    take(p, PROCESSOR, cpu);
    take(p, OTHERS, others > 0 ? others : 0);
    take(p, STOLEN, stolen - stolen_before);
    take(p, PEAK, (double)used.ru_maxrss / 1024);
    p->done++;
}

/* ---- The table ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *x, int n)
{
    double copy[MAX_ROUNDS];
    memcpy(copy, x, (size_t)n * sizeof *x);
    qsort(copy, (size_t)n, sizeof *copy, by_value);
    return (copy[(n - 1) / 2] + copy[n / 2]) / 2;
}

static void range(const program *p)
{
    double low = p->values[WALL][0], high = low;
    for (int i = 0; i < p->done; i++) {
        if (p->values[WALL][i] < low) low = p->values[WALL][i];
        if (p->values[WALL][i] > high) high = p->values[WALL][i];
    }
    printf("  (wall %.4g to %.4g)\n", low, high);
}

static void print_table(const program *p, int n)
{
    printf("medians of up to %d rounds in turn; x: wall time / that of the first\n%-26s", rounds, "");
    for (int k = 0; k < n_keys; k++) printf(" %10s", keys[k]);
    printf(" %6s\n", "x");
    for (int i = 0; i < n; i++) {
        if (!p[i].done) continue;
        printf("%-26s", p[i].name);
        for (int k = 0; k < n_keys; k++)
            if (p[i].has[k])
                printf(" %10.4g", median(p[i].values[k], p[i].done));
            else
                printf(" %10s", "-");
        printf(" %6.2f", p->done ? median(p[i].values[WALL], p[i].done) / median(p->values[WALL], p->done) : 0);
        range(&p[i]);
    }
}

static void append(const char *path, const program *p, int n)
{
    FILE *f = fopen(path, "a");
    for (int i = 0; f && i < n; i++)
        for (int k = 0; k < n_keys; k++)
            if (p[i].has[k]) fprintf(f, "%s\t%s\t%.6g\n", p[i].name, keys[k], median(p[i].values[k], p[i].done));
    if (!f || fclose(f)) perror(path);
}

/* ---- The list ---- */

static char *field(char **rest)
{
    char *f = strsep(rest, "\t");
    return strdup(f ? f : "");
}

static int read_list(program *p)
{
    char line[8192];
    int n = 0;
    while (n < MAX_PROGRAMS && fgets(line, sizeof line, stdin)) {
        char *rest = line;
        line[strcspn(line, "\n")] = 0;
        if (!*line) continue;
        p[n].name = field(&rest), p[n].files = field(&rest), p[n].command = field(&rest);
        n += *p[n].command != 0;
    }
    return n;
}

int main(int argc, char **argv)
{
    static program programs[MAX_PROGRAMS];
    const char *out = NULL;
    for (int c; (c = getopt(argc, argv, "r:t:o:v")) != -1;) {
        if (c == 'r') rounds = atoi(optarg);
        if (c == 't') limit_s = atoi(optarg);
        if (c == 'o') out = optarg;
        if (c == 'v') verbose = true;
        if (c == '?') return 2;
    }
    if (rounds < 1 || rounds > MAX_ROUNDS) rounds = 3;
    const int n = read_list(programs);
    for (int i = 0; i < n; i++) each_file(programs[i].files, count_file, count_file);
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < n; i++)
            if (!programs[i].failed) run(programs, n, &programs[i]);
    print_table(programs, n);
    if (out) append(out, programs, n);
    return 0;
}

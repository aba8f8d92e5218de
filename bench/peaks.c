/* peaks.c - peaks.h as a program. Usage: peaks [-k] [THREADS]. With -k a line "KEY VALUE" per type of numbers, the best
 * instruction's, for turns and scripts. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "peaks.h"

static double best_of(const peak *p, int threads)
{
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const double v = peak_gops(p, threads);
        if (v > best) best = v;
    }
    return best;
}

static void print_keys(int threads)
{
    static const char *const keys[] = {"fp32", "bf16", "int8"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        double best = 0;
        for (int i = 0; i < N_PEAKS; i++) {
            const double v = strcmp(peaks[i].key, keys[k]) ? 0 : best_of(&peaks[i], threads);
            if (v > best) best = v;
        }
        printf("%s %.1f\n", keys[k], best);
    }
    printf("memory %.1f\n", peak_memory(threads));
}

int main(int argc, char **argv)
{
    const bool brief = argc > 1 && !strcmp(argv[1], "-k");
    const int threads = argc > 1 + brief ? atoi(argv[1 + brief]) : 1;
    if (brief) {
        print_keys(threads);
        return 0;
    }
    printf("%d thread%s, Gop/s, the best of five\n", threads, threads == 1 ? "" : "s");
    for (int i = 0; i < N_PEAKS; i++)
        if (peaks[i].supported()) printf("  %-52s %8.1f\n", peaks[i].what, best_of(&peaks[i], threads));
    printf("  %-52s %8.1f GB/s\n", "reading memory", peak_memory(threads));
    return 0;
}

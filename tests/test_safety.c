/* test_safety.c - a guest in the host's process: what a whole run of the library leaves untouched, and what it does
 * where the system refuses things. SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <fenv.h>
#include <locale.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "comma_locale.h"
#include "fixture.h"
#include "radz.h"
#include "sanitized.h"

static char *dir, *model_dir, *film, *classes;

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    model_dir = strdup(fixture_path(dir, "tiny"));
    film = strdup(fixture_path(dir, "film.png"));
    classes = strdup(fixture_path(dir, "classes.txt"));
    if (mkdir(model_dir, 0700)) return -1;
    fixture_model(model_dir, 7);
    fixture_png(film, 100, 80, 1, 1);
    fixture_write_text(classes, "Effusion: Fluid around the lung.\nNo Finding: Clear lungs.\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(model_dir), free(film), free(classes);
    return 0;
}

/* Everything from opening to closing; *json (may be NULL) is freed with radz_text_free. */
static radz_status whole_run(int n_threads, char **json, radz_error *err)
{
    radz_runtime_options o;
    radz_runtime *runtime = NULL;
    radz_model *model = NULL;
    radz_session *session = NULL;
    radz_bank *bank = NULL;
    radz_result *result = NULL;
    radz_runtime_options_init(&o);
    o.device = "cpu", o.n_threads = n_threads;
    radz_status status = radz_runtime_create(&o, &runtime, err);
    if (!status) status = radz_model_open(runtime, model_dir, NULL, &model, err);
    if (!status) status = radz_session_open(model, NULL, &session, err);
    if (!status) status = radz_bank_build_file(session, classes, &bank, err);
    if (!status) status = radz_classify_file(session, bank, film, &result, err);
    if (!status && json) status = radz_result_json(result, NULL, json, err);
    radz_result_close(result);
    radz_bank_close(bank);
    radz_session_close(session);
    radz_model_close(model);
    radz_runtime_close(runtime);
    return status;
}

static void check_run(void)
{
    radz_error err;
    if (whole_run(3, NULL, &err)) fail_msg("%s", err.message);
}

/* A good run and some that fail. */
static void all_kinds_of_runs(void)
{
    radz_error err;
    radz_image *image;
    radz_model *model;
    check_run();
    assert_int_equal(radz_image_open_memory(NULL, "\x89PNG\r\n\x1a\n rubbish", 16, &image, &err), RADZ_E_FORMAT);
    assert_int_equal(radz_image_open(NULL, "/no/such/film.png", &image, &err), RADZ_E_IO);
    assert_int_not_equal(radz_model_open(NULL, dir, NULL, &model, &err), RADZ_OK);
}

/* ---- What the host owns ---------------------------------------------------------------------- */

static void fpu_is_left_alone(void **state)
{
    (void)state;
    static const int modes[] = {FE_UPWARD, FE_TOWARDZERO, FE_TONEAREST};
    for (int i = 0; i < 3; i++) {
        fesetround(modes[i]);
#ifdef __SSE__
        unsigned before = __builtin_ia32_stmxcsr(), flags = 0x3F;
#endif
        all_kinds_of_runs();
        int mode = fegetround();
        fesetround(FE_TONEAREST);
        assert_int_equal(mode, modes[i]);
#ifdef __SSE__
        /* The flags of past exceptions may differ; masks, rounding and flush modes may not. */
        assert_int_equal((before & ~flags & ~0x6000u), (__builtin_ia32_stmxcsr() & ~flags & ~0x6000u));
#endif
    }
}

static void signals_are_left_alone(void **state)
{
    (void)state;
    sigset_t before, after;
    struct sigaction actions[32], now;
    sigset_t odd;
    sigemptyset(&odd);
    sigaddset(&odd, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &odd, &before);
    for (int s = 1; s < 32; s++) sigaction(s, NULL, &actions[s]);
    all_kinds_of_runs();
    for (int s = 1; s < 32; s++) {
        sigaction(s, NULL, &now);
        assert_true(now.sa_handler == actions[s].sa_handler && now.sa_flags == actions[s].sa_flags);
    }
    pthread_sigmask(SIG_SETMASK, &before, &after);
    for (int s = 1; s < 32; s++) assert_int_equal(sigismember(&after, s), sigismember(&before, s) || s == SIGUSR2);
}

static size_t environment_size(void)
{
    size_t n = 0;
    for (char **e = environ; *e; e++) n += strlen(*e) + 1;
    return n;
}

static void process_is_left_alone(void **state)
{
    (void)state;
    char before[4096], after[4096];
    mode_t mask = umask(0123);
    size_t environment = environment_size();
    char *locale = strdup(setlocale(LC_ALL, NULL));
    assert_non_null(getcwd(before, sizeof before));
    all_kinds_of_runs();
    assert_non_null(getcwd(after, sizeof after));
    assert_string_equal(before, after);
    assert_int_equal(umask(mask), 0123);
    assert_int_equal(environment_size(), environment);
    assert_string_equal(setlocale(LC_ALL, NULL), locale);
    free(locale);
}

static int count_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void no_descriptor_or_thread_stays(void **state)
{
    (void)state;
    all_kinds_of_runs();
    int files = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    for (int i = 0; i < 5; i++) all_kinds_of_runs();
    assert_int_equal(count_entries("/proc/self/fd"), files);
    assert_int_equal(count_entries("/proc/self/task"), threads);
}

/* With standard output and standard error in a file. */
static void nothing_is_printed(void **state)
{
    (void)state;
    const char *path = fixture_path(dir, "printed");
    struct stat st;
    fflush(NULL);
    int out = dup(1), err = dup(2), fd = open(path, O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(out >= 0 && err >= 0 && fd >= 0);
    dup2(fd, 1), dup2(fd, 2);
    all_kinds_of_runs();
    fflush(NULL);
    dup2(out, 1), dup2(err, 2);
    close(out), close(err);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    assert_int_equal(st.st_size, 0);
}

static void decimal_commas_change_nothing(void **state)
{
    (void)state;
    radz_error err;
    char *plain = NULL, *comma = NULL;
    assert_int_equal(whole_run(2, &plain, &err), RADZ_OK);
    if (!comma_locale_enter()) {
        radz_text_free(plain);
        skip();
    }
    radz_status status = whole_run(2, &comma, &err);
    comma_locale_leave();
    if (status) fail_msg("%s", err.message);
    assert_string_equal(plain, comma);
    radz_text_free(plain);
    radz_text_free(comma);
}

/* ---- What the system refuses --------------------------------------------------------------------- */

/* Runs in a child, so that limits end with it: 0, or the line that did not like something. */
static void in_child(int (*run)(void))
{
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (!child) {
        alarm(600); /* a hang becomes a signal */
        _exit(run());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) fail_msg("the child died of signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status)) fail_msg("the child failed at line %d, or a multiple of 256 later", WEXITSTATUS(status));
}
#define CHILD_LINE (__LINE__ % 256 ? __LINE__ % 256 : 1)

/* No room for 64 stacks, and less and less for anything else. */
static int little_address_space(void)
{
    static const size_t spare_mb[] = {400, 100, 40, 20, 10, 5, 2, 1, 0};
    struct rlimit limit;
    for (size_t i = 0; i < sizeof spare_mb / sizeof *spare_mb; i++) {
        radz_error err = {0};
        FILE *f = fopen("/proc/self/statm", "r");
        unsigned long pages = 0;
        if (!f || fscanf(f, "%lu", &pages) != 1) return CHILD_LINE;
        fclose(f);
        if (getrlimit(RLIMIT_AS, &limit)) return CHILD_LINE;
        limit.rlim_cur = pages * (size_t)sysconf(_SC_PAGESIZE) + (spare_mb[i] << 20);
        if (setrlimit(RLIMIT_AS, &limit)) return CHILD_LINE;
        radz_status status = whole_run(64, NULL, &err);
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_AS, &limit)) return CHILD_LINE;
        if (status != RADZ_OK && status != RADZ_E_MEMORY) return CHILD_LINE;
        if (status && !err.message[0]) return CHILD_LINE;
        if (spare_mb[i] == 400 && status) return CHILD_LINE; /* fewer threads, but a result */
    }
    return whole_run(2, NULL, NULL) ? CHILD_LINE : 0;
}

static void address_space_runs_out(void **state)
{
    (void)state;
    if (SANITIZED) skip(); /* their own maps need more than any such limit */
    in_child(little_address_space);
}

static int few_descriptors(void)
{
    struct rlimit limit = {0, 0};
    if (getrlimit(RLIMIT_NOFILE, &limit)) return CHILD_LINE;
    rlim_t enough = limit.rlim_cur;
    bool worked = false;
    for (rlim_t n = 0; n < 16; n++) {
        radz_error err = {0};
        limit.rlim_cur = n;
        if (setrlimit(RLIMIT_NOFILE, &limit)) return CHILD_LINE;
        radz_status status = whole_run(2, NULL, &err);
        limit.rlim_cur = enough;
        if (setrlimit(RLIMIT_NOFILE, &limit)) return CHILD_LINE;
        if (status != RADZ_OK && status != RADZ_E_IO) return CHILD_LINE;
        if (status && !strstr(err.message, "too many open files")) return CHILD_LINE;
        worked |= status == RADZ_OK;
    }
    return worked ? 0 : CHILD_LINE;
}

static void descriptors_run_out(void **state)
{
    (void)state;
    in_child(few_descriptors);
}

/* ---- Loading --------------------------------------------------------------------------------------- */

static void library_loads_and_unloads(void **state)
{
    (void)state;
    if (SANITIZED) skip(); /* their run-time does not like to be loaded twice */
    char path[4096];
    snprintf(path, sizeof path, "%s", fixture_program("x"));
    *strrchr(path, '/') = 0;
    strcpy(strrchr(path, '/'), "/libradz.so");
    int files = count_entries("/proc/self/fd"), threads = count_entries("/proc/self/task");
    for (int i = 0; i < 200; i++) {
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) fail_msg("%s", dlerror());
        radz_status (*create)(const radz_runtime_options *, radz_runtime **, radz_error *);
        void (*destroy)(radz_runtime *);
        *(void **)&create = dlsym(library, "radz_runtime_create");
        *(void **)&destroy = dlsym(library, "radz_runtime_close");
        radz_runtime *runtime;
        assert_true(create && destroy);
        assert_int_equal(create(NULL, &runtime, NULL), RADZ_OK);
        destroy(runtime);
        assert_int_equal(dlclose(library), 0);
    }
    assert_int_equal(count_entries("/proc/self/fd"), files);
    assert_int_equal(count_entries("/proc/self/task"), threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_are_left_alone),    cmocka_unit_test(fpu_is_left_alone),
        cmocka_unit_test(process_is_left_alone),     cmocka_unit_test(no_descriptor_or_thread_stays),
        cmocka_unit_test(nothing_is_printed),        cmocka_unit_test(decimal_commas_change_nothing),
        cmocka_unit_test(address_space_runs_out),    cmocka_unit_test(descriptors_run_out),
        cmocka_unit_test(library_loads_and_unloads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

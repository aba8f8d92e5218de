/* test_cli.c - the program radz-classify as its users meet it: arguments, output, exit status.
 * SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "bank.h"
#include "fixture.h"
#include "formats.h"
#include "run_program.h"

static radz_error err;
static char *dir, *model, *film, *broken, *films;
static const char *program;

static const char descriptions[] = "Effusion: fluid around the lung\nNo Finding: clear\nA label that is far too long "
                                   "for the column it stands in: x\n\xc3\x9c"
                                   "bel, \"quoted\": y\n";

#define RUN(...) run_program((const char *const[]){program, __VA_ARGS__, NULL}, NULL, TO_FILE)

static int setup(void **state)
{
    (void)state;
    dir = fixture_temp_dir();
    run_folder = dir;
    program = fixture_program("radz-classify");
    model = strdup(fixture_path(dir, "model"));
    film = strdup(fixture_path(dir, "film.png"));
    broken = strdup(fixture_path(dir, "broken.png"));
    films = strdup(fixture_path(dir, "films"));
    assert_int_equal(mkdir(model, 0700), 0);
    fixture_model(model, 3);
    fixture_png(film, 120, 100, 1, 1);
    fixture_write_text(broken, "\x89PNG\r\n\x1a\n and nothing more");
    fixture_write_text(fixture_path(dir, "list.txt"), descriptions);
    setenv("RADZ_MODEL", model, 1);
    setenv("LC_ALL", "C", 1);
    rz_bank_list list;
    radz_model *m = NULL;
    radz_session *s = NULL;
    radz_bank *bank = NULL;
    assert_int_equal(rz_bank_list_open(NULL, fixture_path(dir, "list.txt"), &list, &err), 0);
    if (radz_model_open(NULL, model, NULL, &m, &err) || radz_session_open(m, NULL, &s, &err) ||
        radz_bank_build(s, list.entries, list.n, &bank, &err) ||
        radz_bank_save(bank, fixture_path(model, "anchors.safetensors"), &err))
        fail_msg("%s", err.message);
    radz_bank_close(bank), radz_session_close(s), radz_model_close(m);
    rz_bank_list_free(NULL, &list);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_remove(dir);
    free(dir), free(model), free(film), free(broken), free(films);
    return 0;
}

/* ---- Usage ---- */

static void test_help_and_version(void **state)
{
    (void)state;
    run r = RUN("--help");
    run_expect(&r, 0, "usage: radz-classify", NULL);
    run_expect(&r, 0, "NOT FOR DIAGNOSIS", NULL);
    assert_string_equal(r.err, "");
    run_done(&r);
    r = RUN("--version");
    run_expect(&r, 0, radz_version(), NULL);
    run_expect(&r, 0, "Research use only", NULL);
    run_done(&r);
}

static void test_wrong_usage(void **state)
{
    (void)state;
    static const struct {
        const char *args[5], *words;
    } cases[] = {
        {{NULL}, "no film given"},
        {{"--bogus", "x"}, "unknown option --bogus"},
        {{"-j", "x"}, "unknown option -j"},
        {{"--jsonx", "x"}, "unknown option --jsonx"},
        {{"--json", "--json", "x"}, "--json is given twice"},
        {{"--threads", "1", "--threads=2", "x"}, "--threads is given twice"},
        {{"--json", "--csv", "x"}, "--json and --csv"},
        {{"--bank", "b", "--classes", "a", "x"}, "--bank and --classes"},
        {{"--threads", "-1", "x"}, "--threads"},
        {{"--threads", "1e99", "x"}, "--threads"},
        {{"--threads", "99999999999999999999", "x"}, "--threads"},
        {{"--threads", "1025", "x"}, "--threads"},
        {{"--threads", " 1", "x"}, "--threads"},
        {{"--threads=", "x"}, "--threads needs a value"},
        {{"x", "--model"}, "--model needs a value"},
        {{"--json=1", "x"}, "--json takes no value"},
        {{"--device", "tpu", "x"}, "--device"},
        {{"-", "-"}, "only once"},
    };
    for (size_t i = 0; i < RZ_COUNT(cases); i++) {
        const char *argv[8] = {program};
        for (size_t k = 0; k < 5 && cases[i].args[k]; k++) argv[k + 1] = cases[i].args[k];
        run r = run_program(argv, NULL, TO_FILE);
        run_expect(&r, 2, NULL, cases[i].words);
        run_expect(&r, 2, NULL, "usage: radz-classify");
        assert_string_equal(r.out, "");
        run_done(&r);
    }
    run r = RUN("--classes", "a,,b", film);
    run_expect(&r, 2, NULL, "--classes: a name is empty");
    run_done(&r);
    r = RUN("--classes", "a,b,A", film);
    run_expect(&r, 2, NULL, "--classes: A comes twice");
    run_done(&r);
}

static void test_no_such_model_or_bank(void **state)
{
    (void)state;
    run r = RUN("--model", fixture_path(dir, "nowhere"), film);
    run_expect(&r, 2, NULL, "nowhere");
    run_done(&r);
    r = RUN("--bank", film, film);
    run_expect(&r, 2, NULL, "not an anchor bank");
    run_done(&r);
}

/* A copy of the program far from any model says where it looked. */
static void test_no_model_anywhere(void **state)
{
    (void)state;
    size_t n;
    char *bytes = fixture_read(program, &n), lib[4096];
    const char *bin = fixture_path(dir, "bin"), *copy = fixture_path(bin, "radz-classify");
    assert_int_equal(mkdir(bin, 0700), 0);
    fixture_write(copy, bytes, n);
    chmod(copy, 0700);
    snprintf(lib, sizeof lib, "%s", program);
    for (int up = 0; up < 2; up++) *strrchr(lib, '/') = 0;
    setenv("LD_LIBRARY_PATH", lib, 1);
    unsetenv("RADZ_MODEL");
    run r = run_program((const char *const[]){copy, film, NULL}, NULL, TO_FILE);
    run_expect(&r, 2, NULL, "--model DIR");
    run_expect(&r, 2, NULL, "bin/../share/radz/models/radz-tiny");
    run_done(&r);
    unsetenv("LD_LIBRARY_PATH");
    setenv("RADZ_MODEL", model, 1);
    free(bytes);
}

/* ---- Table ---- */

static void test_table(void **state)
{
    (void)state;
    run r = RUN("--model", model, "--device", "cpu", "--threads=2", film);
    run_expect(&r, 0, "film.png   120 x 100 pixels\n", "libradz ");
    static const char *const words[] = {"Finding",
                                        "Probability",
                                        "Similarity",
                                        "Effusion",
                                        "No Finding",
                                        " %",
                                        "A label that is far too long for the column it stands in\n",
                                        "Research use only. Not for diagnosis.\n",
                                        "not calibrated"};
    for (size_t i = 0; i < RZ_COUNT(words); i++) run_expect(&r, 0, words[i], NULL);
    const char *line = strchr(r.out, '\n') + 1; /* the first line holds the path */
    for (const char *end; (end = strchr(line, '\n')); line = end + 1)
        if (end - line > 80 && strncmp(line, "Note: ", 6) != 0) fail_msg("too wide: %.*s", (int)(end - line), line);
    run_done(&r);
}

static void test_quiet(void **state)
{
    (void)state;
    run r = RUN("--quiet", film, film, film, film, film);
    run_expect(&r, 0, "Research use only", NULL);
    assert_string_equal(r.err, "");
    run_done(&r);
    r = RUN("--quiet", "--csv", film);
    assert_string_equal(r.err, "");
    run_done(&r);
}

static void test_names_are_escaped(void **state)
{
    (void)state;
    const char *evil = fixture_path(dir, "a\n\x1b[31m\xe2\x80\xae.png");
    fixture_png(evil, 64, 64, 1, 1);
    run r = RUN("--classes", "x\x1by,b", evil);
    run_expect(&r, 2, NULL, "control character");
    assert_null(strchr(r.err, '\x1b'));
    run_done(&r);
    r = RUN("--classes", "a,b", evil);
    run_expect(&r, 0, "a\\x0a\\x1b[31m\\xe2\\x80\\xae.png", NULL);
    assert_null(strchr(r.out, '\x1b'));
    run_done(&r);
    remove(evil);
    r = RUN(evil);
    run_expect(&r, 1, NULL, "\\x1b");
    assert_null(strchr(r.err, '\x1b'));
    run_done(&r);
}

/* What the program draws on a terminal of this kind; static. */
static char *on_terminal(const char *kind)
{
    static char drawn[4096];
    size_t n = 0;
    int status, pty = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(pty >= 0 && grantpt(pty) == 0 && unlockpt(pty) == 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(open(ptsname(pty), O_RDWR | O_NOCTTY), 2);
        dup2(open("/dev/null", O_WRONLY), 1);
        setenv("TERM", kind, 1);
        alarm(120);
        execl(program, program, film, film, film, film, (char *)NULL);
        _exit(127);
    }
    for (ssize_t k; n < sizeof drawn - 1 && (k = read(pty, drawn + n, sizeof drawn - 1 - n)) > 0;) n += (size_t)k;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(pty);
    drawn[n] = 0;
    return drawn;
}

static void test_progress(void **state)
{
    (void)state;
    const char *drawn = on_terminal("xterm");
    assert_non_null(strstr(drawn, "\033[K"));
    assert_non_null(strstr(drawn, "2/4"));
    drawn = on_terminal("dumb");
    assert_non_null(strstr(drawn, "libradz "));
    assert_null(strchr(drawn, '\033'));
    assert_null(strstr(drawn, "2/4"));
}

/* ---- JSON ---- */

/* Line `i` of the output as JSON. */
static json_t *json_line(const run *r, size_t i)
{
    const char *line = r->out;
    json_t *root = NULL;
    for (; i && line; i--) line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL;
    const char *end = line ? strchr(line, '\n') : NULL;
    if (!end) fail_msg("too few lines: %s", r->out);
    if (rz_json_parse(line, (size_t)(end - line), "line", &root, &err)) fail_msg("%s", err.message);
    return root;
}

static size_t count_lines(const run *r)
{
    size_t n = 0;
    for (const char *p = r->out; *p; p++) n += *p == '\n';
    return n;
}

static const char *path_of(const json_t *line)
{
    return json_string_value(json_object_get(json_object_get(line, "input"), "path"));
}

static void test_json(void **state)
{
    (void)state;
    const char *nowhere = fixture_path(dir, "nowhere.png");
    run r = RUN("--json", film, broken, nowhere, film);
    run_expect(&r, 1, NULL, "2 of 4 inputs failed");
    assert_int_equal(count_lines(&r), 4);
    const char *paths[] = {film, broken, nowhere, film}, *codes[] = {NULL, "format", "io", NULL};
    for (size_t i = 0; i < 4; i++) {
        json_t *line = json_line(&r, i), *error = json_object_get(line, "error"),
               *scores = json_object_get(line, "scores");
        assert_string_equal(json_string_value(json_object_get(line, "schema")), "radz.result/1");
        assert_string_equal(path_of(line), paths[i]);
        assert_true(codes[i] ? error && !scores : scores && !error);
        if (codes[i]) assert_string_equal(json_string_value(json_object_get(error, "code")), codes[i]);
        if (scores) assert_int_equal(json_array_size(scores), 4);
        for (size_t k = 1; k < json_array_size(scores); k++)
            assert_true(json_number_value(json_object_get(json_array_get(scores, k), "probability")) <=
                        json_number_value(json_object_get(json_array_get(scores, k - 1), "probability")));
        json_decref(line);
    }
    run_done(&r);
}

static void test_same_output_for_any_thread_count(void **state)
{
    (void)state;
    run a = RUN("--json", "--threads", "1", film, film), b = RUN("--json", "--threads", "3", film, film);
    json_t *x = json_line(&a, 1), *y = json_line(&b, 0);
    assert_true(json_equal(json_object_get(x, "scores"), json_object_get(y, "scores")));
    json_decref(x), json_decref(y);
    run_done(&a), run_done(&b);
}

static void test_standard_input(void **state)
{
    (void)state;
    run r = run_program((const char *const[]){program, "--json", "-", NULL}, film, TO_FILE);
    run same = RUN("--json", film);
    run_expect(&r, 0, "\"path\":\"-\"", NULL);
    json_t *x = json_line(&r, 0), *y = json_line(&same, 0);
    assert_true(json_equal(json_object_get(x, "scores"), json_object_get(y, "scores")));
    assert_true(json_equal(json_object_get(json_object_get(x, "input"), "sha256"),
                           json_object_get(json_object_get(y, "input"), "sha256")));
    json_decref(x), json_decref(y);
    run_done(&r), run_done(&same);
    r = RUN("--json", "-");
    run_expect(&r, 1, "\"error\"", NULL);
    run_done(&r);
}

static void test_classes_never_seen(void **state)
{
    (void)state;
    run r = RUN("--json", "--classes", " Scoliosis , Rib fracture,normal", film);
    run_expect(&r, 0, "\"reference\":\"normal\"", NULL);
    run_expect(&r, 0, "\"label\":\"Rib fracture\"", NULL);
    json_t *line = json_line(&r, 0);
    assert_int_equal(json_array_size(json_object_get(line, "scores")), 3);
    json_decref(line);
    run_done(&r);
    r = RUN("--json", "--classes=a,b", film);
    run_expect(&r, 0, "\"reference\":null", NULL);
    run_expect(&r, 0, "probabilities are shares", NULL);
    run_done(&r);
}

/* ---- Folders ---- */

static void test_folder(void **state)
{
    (void)state;
    const char *sub = fixture_path(films, "sub");
    assert_int_equal(mkdir(films, 0700) | mkdir(sub, 0700), 0);
    fixture_png(fixture_path(films, "b.PNG"), 80, 80, 3, 2);
    fixture_png(fixture_path(films, "a.jpeg"), 80, 80, 1, 3); /* by content, not by name */
    fixture_png(fixture_path(sub, "z.png"), 80, 80, 1, 4);
    fixture_write_text(fixture_path(films, "notes.txt"), "x");
    fixture_write_text(fixture_path(films, "c.jpg"), "not a film");
    fixture_png(fixture_path(films, "d.DCM"), 80, 80, 1, 5);
    /* As an archive's export has them; what is in it does not matter here. */
    static const uint8_t dicom[400] = {[128] = 'D', 'I', 'C', 'M'};
    fixture_write(fixture_path(films, "IM000001"), dicom, sizeof dicom);
    fixture_write(fixture_path(films, "1.2.840.9"), dicom, sizeof dicom);
    fixture_write(fixture_path(films, "DICOMDIR"), dicom, sizeof dicom);
    fixture_write(fixture_path(films, ".hidden"), dicom, sizeof dicom);
    fixture_write(fixture_path(films, "short"), dicom, 130);
    assert_int_equal(mkfifo(fixture_path(films, "fifo"), 0600), 0);
    assert_int_equal(symlink(films, fixture_path(films, "loop")), 0);
    run r = RUN("--json", films);
    run_expect(&r, 1, NULL, "3 of 7");
    assert_int_equal(count_lines(&r), 7);
    static const char *const names[] = {"1.2.840.9", "IM000001", "a.jpeg", "b.PNG", "c.jpg", "d.DCM", "sub/z.png"};
    for (size_t i = 0; i < RZ_COUNT(names); i++) {
        json_t *line = json_line(&r, i);
        assert_string_equal(path_of(line), fixture_path(films, names[i]));
        json_decref(line);
    }
    run_done(&r);
}

/* A folder, standard input, one that is not there, a folder again: in that order. */
static void test_order(void **state)
{
    (void)state;
    const char *const argv[] = {program, "--json", "--quiet", films, "-", "/nowhere", film, films, NULL};
    static const char *const ends[] = {"1.2.840.9", "IM000001", "a.jpeg",   "b.PNG",    "c.jpg",     "d.DCM",
                                       "z.png",     "-",        "/nowhere", "film.png", "1.2.840.9", "IM000001",
                                       "a.jpeg",    "b.PNG",    "c.jpg",    "d.DCM",    "z.png"};
    run r = run_program(argv, film, TO_FILE);
    run_expect(&r, 1, NULL, NULL);
    assert_int_equal(count_lines(&r), RZ_COUNT(ends));
    for (size_t i = 0; i < RZ_COUNT(ends); i++) {
        json_t *line = json_line(&r, i);
        const char *path = path_of(line);
        const size_t n = strlen(path), k = strlen(ends[i]);
        assert_true(n >= k && strcmp(path + n - k, ends[i]) == 0);
        json_decref(line);
    }
    run_done(&r);
}

/* What fails for all of them is still said of each. */
static void test_reads_no_films(void **state)
{
    (void)state;
    run r = RUN("--json", "--model", "tests/data/stories260K", film, broken, film);
    run_expect(&r, 1, "no vision tower", "3 of 3 inputs failed");
    assert_int_equal(count_lines(&r), 3);
    run_done(&r);
}

static void test_empty_folder(void **state)
{
    (void)state;
    const char *empty = fixture_path(dir, "empty");
    assert_int_equal(mkdir(empty, 0700), 0);
    run r = RUN("--json", empty, film);
    run_expect(&r, 1, "\"scores\"", "1 of 2 inputs failed");
    assert_non_null(strstr(r.out, "\"error\":{\"code\":\"io\",\"message\":"));
    assert_non_null(strstr(r.out, "empty: no *.png"));
    run_done(&r);
}

static void test_double_dash(void **state)
{
    (void)state;
    run r = RUN("--json", "--", "--csv");
    run_expect(&r, 1, "\"path\":\"--csv\"", NULL);
    run_done(&r);
}

/* ---- CSV ---- */

static void test_csv(void **state)
{
    (void)state;
    const char *odd = fixture_path(dir, "odd, \"name\".png");
    fixture_png(odd, 70, 90, 1, 1);
    run r = RUN("--csv", odd, broken), same = RUN("--json", odd);
    run_expect(&r, 1, NULL, "broken.png");
    rz_csv *csv;
    if (rz_csv_parse(NULL, r.out, r.n_out, "stdout", &csv, &err)) fail_msg("%s", err.message);
    assert_int_equal(rz_csv_rows(csv), 5);
    int path = rz_csv_column(csv, "path"), label = rz_csv_column(csv, "label"), p = rz_csv_column(csv, "probability");
    json_t *line = json_line(&same, 0);
    for (size_t i = 0; i < 4; i++) {
        double v;
        const char *text = rz_csv_get(csv, i, p);
        json_t *score = json_array_get(json_object_get(line, "scores"), i);
        assert_string_equal(rz_csv_get(csv, i, path), odd);
        assert_string_equal(rz_csv_get(csv, i, label), json_string_value(json_object_get(score, "label")));
        assert_true(rz_parse_double(text, strlen(text), &v));
        assert_true(v == json_number_value(json_object_get(score, "probability")));
        assert_string_equal(rz_csv_get(csv, i, rz_csv_column(csv, "width_px")), "70");
        assert_string_equal(rz_csv_get(csv, i, rz_csv_column(csv, "error")), "");
    }
    assert_string_equal(rz_csv_get(csv, 4, path), broken);
    assert_string_equal(rz_csv_get(csv, 4, p), "");
    assert_string_equal(rz_csv_get(csv, 4, rz_csv_column(csv, "error")), "format");
    json_decref(line);
    rz_csv_close(csv);
    run_done(&r), run_done(&same);
}

/* ---- Output that can not be written ---- */

static void test_broken_output(void **state)
{
    (void)state;
    static const char *const forms[] = {"--json", "--csv", "--quiet", "--help", "--version"};
    for (size_t i = 0; i < RZ_COUNT(forms); i++) {
        const char *argv[] = {program, forms[i], film, NULL};
        run full = run_program(argv, NULL, TO_FULL), closed = run_program(argv, NULL, TO_NOTHING);
        run_expect(&full, 1, NULL, "cannot write to standard output");
        run_expect(&closed, 1, NULL, "standard output is closed");
        run_done(&full), run_done(&closed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_wrong_usage),
        cmocka_unit_test(test_no_such_model_or_bank),
        cmocka_unit_test(test_no_model_anywhere),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_quiet),
        cmocka_unit_test(test_names_are_escaped),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_same_output_for_any_thread_count),
        cmocka_unit_test(test_standard_input),
        cmocka_unit_test(test_classes_never_seen),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_reads_no_films),
        cmocka_unit_test(test_empty_folder),
        cmocka_unit_test(test_double_dash),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_broken_output),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* test_dicom_write.c - results as DICOM objects: the film's patient and study in them, UIDs that follow from the film
 * and the model, what is refused, and what the validators of dcmtk, dicom3tools and PixelMed say.
 * SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "dicom_fixture.h"
#include "dicom_report.h"
#include "dicom_write.h"
#include "failing_host.h"
#include "fixture.h"

static radz_error err;
static char *dir;
static radz_runtime *runtime;
static radz_model *model;
static radz_session *session;
static radz_bank *bank;

static void good(radz_status status)
{
    if (status) fail_msg("%s", err.message);
}

static const radz_bank_entry classes[] = {{"No Finding", NULL}, {"Effusion", NULL}, {"Gro\xc3\x9f", NULL}};
enum { N_CLASSES = 3 };

static int setup(void **state)
{
    (void)state;
    radz_runtime_options o;
    radz_runtime_options_init(&o);
    o.n_threads = 1;
    dir = fixture_temp_dir();
    assert_int_equal(mkdir(fixture_path(dir, "model"), 0700), 0);
    fixture_model(fixture_path(dir, "model"), 3);
    good(radz_runtime_create(&o, &runtime, &err));
    good(radz_model_open(runtime, fixture_path(dir, "model"), NULL, &model, &err));
    good(radz_session_open(model, NULL, &session, &err));
    good(radz_bank_build(session, classes, N_CLASSES, &bank, &err));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    radz_bank_close(bank), radz_session_close(session), radz_model_close(model), radz_runtime_close(runtime);
    fixture_remove(dir);
    free(dir);
    return 0;
}

/* ---- Films and their objects ---- */

typedef struct work {
    radz_image *image;
    radz_result *result;
    float map[12];
    radz_dicom_options o;
} work;

static work begin(dicom_film m)
{
    work w = {.map = {0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, NAN}};
    m.identified = true;
    const dicom_file f = dicom_make(m);
    good(radz_image_open_memory(runtime, f.bytes, f.n, &w.image, &err));
    good(radz_classify(session, bank, w.image, &w.result, &err));
    radz_dicom_options_init(&w.o);
    w.o.date_time = "20260102030405";
    return w;
}

static void end(work *w)
{
    radz_image_close(w->image), radz_result_close(w->result);
}

static const char *const kinds[] = {"sr", "sc", "gsps"};
enum { N_KINDS = 3 };

static radz_status build(const work *w, size_t kind, radz_dicom **d)
{
    return kind == 0   ? radz_dicom_build_sr(w->image, w->result, &w->o, d, &err)
           : kind == 1 ? radz_dicom_build_sc(w->image, w->result, "effusion", w->map, &w->o, d, &err)
                       : radz_dicom_build_gsps(w->image, w->result, "effusion", w->map, &w->o, d, &err);
}

/* The object, read again. */
typedef struct made {
    radz_dicom *d;
    rz_dicom parsed;
} made;

static made build_good(const work *w, size_t kind)
{
    made o = {0};
    good(build(w, kind, &o.d));
    good(rz_dicom_parse(NULL, radz_dicom_bytes(o.d), radz_dicom_size(o.d), "object", &o.parsed, &err));
    return o;
}

static void object_done(made *o)
{
    radz_dicom_close(o->d);
    rz_dicom_free(&o->parsed);
}

/* The bytes of an element without padding, in static storage; NULL: not there. */
static const char *value(const made *o, uint32_t tag)
{
    static char texts[4][256];
    static size_t next;
    char *to = texts[next++ % 4];
    const rz_dicom_element *e = rz_dicom_find(&o->parsed, tag);
    if (!e || e->length > 255) return NULL;
    memcpy(to, e->value, e->length);
    to[e->length] = 0;
    for (size_t n = strlen(to); n && to[n - 1] == ' ';) to[--n] = 0;
    return to;
}

static void expect_text(const made *o, uint32_t tag, const char *want)
{
    const char *got = value(o, tag);
    if (!got != !want || (got && strcmp(got, want)))
        fail_msg("(%04x,%04x): \"%s\", expected \"%s\"", tag >> 16, tag & 0xffff, got ? got : "nothing",
                 want ? want : "nothing");
}

static bool holds(const made *o, const char *words)
{
    return memmem(radz_dicom_bytes(o->d), radz_dicom_size(o->d), words, strlen(words)) != NULL;
}

/* ---- UIDs ---- */

static void test_uids_of_texts(void **state)
{
    (void)state;
    char uid[65];
    /* int(sha256(text)[:16] with the bits of a UUID of kind 8), from Python */
    rz_dicom_make_uid("", 0, uid);
    assert_string_equal(uid, "2.25.302652579918966106791432553938847512868");
    rz_dicom_make_uid("abc", 3, uid);
    assert_string_equal(uid, "2.25.247859944228867097191300499870369849891");
}

static void test_made_again_it_is_the_same(void **state)
{
    (void)state;
    work w = begin((dicom_film){0});
    for (size_t k = 0; k < N_KINDS; k++) {
        made a = build_good(&w, k), b = build_good(&w, k);
        assert_int_equal(radz_dicom_size(a.d), radz_dicom_size(b.d));
        assert_memory_equal(radz_dicom_bytes(a.d), radz_dicom_bytes(b.d), radz_dicom_size(a.d));
        object_done(&b);
        w.o.date_time = "20270102030405"; /* later, but the same result */
        b = build_good(&w, k);
        assert_string_equal(radz_dicom_instance_uid(a.d), radz_dicom_instance_uid(b.d));
        assert_string_equal(radz_dicom_series_uid(a.d), radz_dicom_series_uid(b.d));
        object_done(&b);
        w.o.key = "other";
        b = build_good(&w, k);
        assert_string_not_equal(radz_dicom_instance_uid(a.d), radz_dicom_instance_uid(b.d));
        assert_string_equal(radz_dicom_series_uid(a.d), radz_dicom_series_uid(b.d));
        object_done(&b);
        w.o = (radz_dicom_options){.struct_size = sizeof w.o, .threshold = (double)NAN, .outline = .5};
        w.o.date_time = "20260102030405";
        w.o.series_uid = "1.2", w.o.instance_uid = "1.2.3";
        b = build_good(&w, k);
        expect_text(&b, RZ_TAG(0x0008, 0x0018), "1.2.3");
        expect_text(&b, RZ_TAG(0x0020, 0x000e), "1.2");
        w.o.series_uid = w.o.instance_uid = NULL;
        object_done(&a), object_done(&b);
    }
    end(&w);
}

static void test_other_films_have_other_uids(void **state)
{
    (void)state;
    work w = begin((dicom_film){0}), other = begin((dicom_film){.study = "1.2.9"});
    for (size_t k = 0; k < N_KINDS; k++) {
        made a = build_good(&w, k), b = build_good(&other, k);
        assert_string_not_equal(radz_dicom_instance_uid(a.d), radz_dicom_instance_uid(b.d));
        assert_string_not_equal(radz_dicom_series_uid(a.d), radz_dicom_series_uid(b.d));
        object_done(&a), object_done(&b);
    }
    end(&w), end(&other);
}

/* ---- Patient and study ---- */

static void expect_patient(const made *o)
{
    expect_text(o, RZ_TAG(0x0010, 0x0010), NAME);
    expect_text(o, RZ_TAG(0x0010, 0x0020), "PID-42");
    expect_text(o, RZ_TAG(0x0010, 0x0030), "19500102");
    expect_text(o, RZ_TAG(0x0010, 0x0040), "F");
    expect_text(o, RZ_TAG(0x0010, 0x1010), "074Y");
    expect_text(o, RZ_TAG(0x0008, 0x0020), "20240131");
    expect_text(o, RZ_TAG(0x0008, 0x0030), "101112.5");
    expect_text(o, RZ_TAG(0x0008, 0x0050), "ACC77");
    expect_text(o, RZ_TAG(0x0008, 0x0090), "Ref^Erring");
    expect_text(o, RZ_TAG(0x0020, 0x000d), "1.2.3");
    expect_text(o, RZ_TAG(0x0020, 0x0010), "S1");
}

static void test_patient_and_study_are_the_films(void **state)
{
    (void)state;
    const char *const syntaxes[] = {IMPLICIT, EXPLICIT, BIG, DEFLATED};
    for (size_t i = 0; i < RZ_COUNT(syntaxes); i++) {
        work w = begin((dicom_film){.syntax = syntaxes[i]});
        for (size_t k = 0; k < N_KINDS; k++) {
            made o = build_good(&w, k);
            expect_patient(&o);
            assert_string_equal(o.parsed.syntax, EXPLICIT);
            assert_string_not_equal(radz_dicom_series_uid(o.d), "1.2.3.4");
            expect_text(&o, RZ_TAG(0x0008, 0x0018), radz_dicom_instance_uid(o.d));
            expect_text(&o, RZ_TAG(0x0008, 0x0016), radz_dicom_class_uid(o.d));
            assert_true(holds(&o, "1.2.3.4.5")); /* the film's own UID, referred to */
            object_done(&o);
        }
        end(&w);
    }
}

static void test_missing_and_wrong_values(void **state)
{
    (void)state;
    work w = begin((dicom_film){.without = RZ_TAG(0x0010, 0x0020), .age = "81"});
    made o = build_good(&w, 0);
    expect_text(&o, RZ_TAG(0x0010, 0x0020), "");   /* must be there, is not known */
    expect_text(&o, RZ_TAG(0x0010, 0x1010), NULL); /* no age at all: 81 is none */
    object_done(&o), end(&w);
}

static void test_characters(void **state)
{
    (void)state;
    /* The label with a sharp s in Latin-1, UTF-8, ASCII where the film has other characters. */
    work w = begin((dicom_film){.charset = "ISO_IR 100", .name = "M\xfcller^J"});
    made o = build_good(&w, 0);
    expect_text(&o, RZ_TAG(0x0008, 0x0005), "ISO_IR 100");
    expect_text(&o, RZ_TAG(0x0010, 0x0010), "M\xfcller^J");
    assert_true(holds(&o, "Gro\xdf"));
    object_done(&o), end(&w);
    w = begin((dicom_film){.charset = "ISO_IR 192", .name = "M\xc3\xbcller^J"});
    o = build_good(&w, 0);
    assert_true(holds(&o, "Gro\xc3\x9f"));
    object_done(&o), end(&w);
    w = begin((dicom_film){.charset = "ISO_IR 144", .name = "\xbb\xee\xda^J"});
    o = build_good(&w, 0);
    expect_text(&o, RZ_TAG(0x0008, 0x0005), "ISO_IR 144");
    assert_true(holds(&o, "Gro?"));
    object_done(&o), end(&w);
    w = begin((dicom_film){0}); /* ASCII: UTF-8 is said only where it is needed */
    o = build_good(&w, 0);
    expect_text(&o, RZ_TAG(0x0008, 0x0005), "ISO_IR 192");
    assert_true(holds(&o, "Gro\xc3\x9f"));
    object_done(&o);
    o = build_good(&w, 1);
    expect_text(&o, RZ_TAG(0x0008, 0x0005), NULL);
    object_done(&o), end(&w);
}

static void test_date_and_zone(void **state)
{
    (void)state;
    work w = begin((dicom_film){.zone = "+0930"});
    char before[15], after[15], got[15];
    const int east = 9 * 60 + 30;
    w.o.date_time = NULL;
    rz_clock_text(&east, before);
    made o = build_good(&w, 0);
    rz_clock_text(&east, after);
    snprintf(got, sizeof got, "%s%s", value(&o, RZ_TAG(0x0008, 0x0023)), value(&o, RZ_TAG(0x0008, 0x0033)));
    assert_true(strcmp(before, got) <= 0 && strcmp(got, after) <= 0);
    expect_text(&o, RZ_TAG(0x0008, 0x0201), "+0930");
    object_done(&o), end(&w);
}

/* ---- What they say ---- */

static void test_report(void **state)
{
    (void)state;
    work w = begin((dicom_film){.view = "LL"});
    w.o.institution = "General";
    made o = build_good(&w, 0);
    expect_text(&o, RZ_TAG(0x0040, 0xa493), "UNVERIFIED");
    expect_text(&o, RZ_TAG(0x0008, 0x0080), "General");
    assert_true(holds(&o, radz_disclaimer()));
    assert_true(holds(&o, "lateral view"));
    assert_true(holds(&o, "60046008"));
    assert_true(holds(&o, radz_model_hash(model)));
    assert_false(holds(&o, "52101004")); /* nothing is called present without a threshold */
    object_done(&o);
    w.o.threshold = 0;
    o = build_good(&w, 0);
    assert_true(holds(&o, "52101004"));
    assert_false(holds(&o, "272519000"));
    object_done(&o);
    w.o.threshold_labels = (const char *const[]){"effusion"};
    w.o.thresholds = (const double[]){1}, w.o.n_thresholds = 1;
    o = build_good(&w, 0);
    assert_true(holds(&o, "272519000"));
    object_done(&o), end(&w);
}

static void test_codes(void **state)
{
    (void)state;
    const char *path = fixture_path(dir, "labels.json");
    work w = begin((dicom_film){0});
    fixture_write_text(path,
                       "{\"schema\":\"radz.labels/1\",\"labels\":{\"EFFUSION\":{\"code\":\"C-1\",\"scheme\":\"99X\","
                       "\"meaning\":\"water\",\"threshold\":0}}}");
    w.o.labels = path;
    made o = build_good(&w, 0);
    assert_true(holds(&o, "C-1") && holds(&o, "99X") && holds(&o, "water"));
    assert_false(holds(&o, "60046008"));
    assert_true(holds(&o, "281900007")); /* what the file has not comes from the table */
    assert_true(holds(&o, "52101004"));
    assert_true(holds(&o, "99RADZ")); /* a class without a code */
    object_done(&o);
    static const char *const bad[][2] = {
        {"{\"labels\":{}}", "schema"},
        {"{\"schema\":\"radz.labels/1\",\"labels\":[]}", "labels"},
        {"{\"schema\":\"radz.labels/1\",\"labels\":{\"a\":{\"code\":\"12345678901234567\"}}}", "code"},
        {"{\"schema\":\"radz.labels/1\",\"labels\":{\"a\":{\"code\":\"1\",\"scheme\":\"\"}}}", "scheme"},
        {"{\"schema\":\"radz.labels/"
         "1\",\"labels\":{\"a\":{\"code\":\"1\",\"scheme\":\"2\",\"meaning\":\"3\",\"threshold\":2}}}",
         "threshold"},
        {"{", "labels.json"}};
    for (size_t i = 0; i < RZ_COUNT(bad); i++) {
        radz_dicom *d;
        fixture_write_text(path, bad[i][0]);
        assert_int_equal(build(&w, 0, &d), RADZ_E_FORMAT);
        if (!strstr(err.message, bad[i][1])) fail_msg("%s", err.message);
        assert_null(d);
    }
    end(&w);
}

/* models/labels.json is the table of the library. */
static void test_shipped_table(void **state)
{
    (void)state;
    json_t *table;
    size_t n = 0;
    good(rz_json_load(NULL, "models/labels.json", 1 << 20, &table, &err));
    const json_t *labels = json_object_get(table, "labels");
    for (const rz_code_entry *e; (e = rz_codes_built_in(n)); n++) {
        const json_t *entry = json_object_get(labels, e->label);
        assert_string_equal(json_string_value(json_object_get(entry, "code")), e->code.value);
        assert_string_equal(json_string_value(json_object_get(entry, "scheme")), e->code.scheme);
        assert_string_equal(json_string_value(json_object_get(entry, "meaning")), e->code.meaning);
    }
    assert_int_equal(json_object_size(labels), n);
    json_decref(table);
}

/* The heat map shows the film's hot pixel in the middle of its square, and words above. */
static void test_picture(void **state)
{
    (void)state;
    work w = begin((dicom_film){.burned = "YES"});
    made o = build_good(&w, 1);
    rz_pixels p;
    good(rz_pixels_decode(NULL, radz_dicom_bytes(o.d), radz_dicom_size(o.d), "sc", &p, &err));
    const uint8_t *rgb = p.data;
    assert_int_equal(p.channels, 3);
    expect_text(&o, RZ_TAG(0x0028, 0x0301), "YES");
    size_t bright = 0, top = 0; /* in the banner; rows before the film, which begins black */
    while (top < p.height_px && memcmp(rgb + 3 * p.width_px * top, "\x18\x18\x18", 3) == 0) top++;
    for (size_t i = 0; i < 3 * p.width_px * top; i++) bright += rgb[i] > 200;
    assert_true(top > 10 && bright > 500);
    const uint8_t *hot = rgb + 3 * (p.width_px * (top + 192) + 192), *cold = rgb + 3 * (p.width_px * (top + 64) + 192);
    assert_true(hot[0] > hot[2] + 20);
    assert_true(cold[0] == cold[1] && cold[1] == cold[2]);
    rz_pixels_free(NULL, &p);
    object_done(&o), end(&w);
}

static void test_large_films_are_made_smaller(void **state)
{
    (void)state;
    enum { W = 2100, H = 60 };
    work w = begin((dicom_film){0});
    static uint16_t pixels[W * H];
    static float map[W * H];
    for (size_t i = 0; i < W * H; i++) pixels[i] = (uint16_t)i, map[i] = (float)(i % W);
    rz_film film = {
        .pixels = {.width_px = W, .height_px = H, .channels = 1, .bits = 16, .data = pixels, .format = "raw"}};
    const dicom_file f = dicom_make((dicom_film){.identified = true});
    rz_dicom source;
    rz_object object;
    good(rz_dicom_source_read(NULL, f.bytes, f.n, &source, &err));
    film.source = &source;
    rz_score score = {.probability = .5, .threshold = (double)NAN};
    char a[] = "A", *label = a, name[] = "m";
    rz_result result = {.n = 1, .scores = &score, .labels = &label, .model_name = name};
    const rz_object_ask ask = {NULL, &film, &result, "A", map, &w.o};
    good(rz_object_build(&ask, RZ_OBJECT_SC, &object, &err));
    rz_pixels p;
    good(rz_pixels_decode(NULL, (uint8_t *)object.file.data, object.file.len, "sc", &p, &err));
    assert_true(p.width_px < W && p.width_px > W / 2);
    rz_pixels_free(NULL, &p);
    rz_object_free(&object), rz_dicom_free(&source), end(&w);
}

static void test_presentation_state(void **state)
{
    (void)state;
    work w = begin(
        (dicom_film){.photometric = "MONOCHROME1", .center = "500", .width = "1000", .slope = "2", .intercept = "-7"});
    made o = build_good(&w, 2);
    expect_text(&o, RZ_TAG(0x2050, 0x0020), "INVERSE");
    expect_text(&o, RZ_TAG(0x0028, 0x1053), "2");
    expect_text(&o, RZ_TAG(0x0028, 0x1054), "US");
    assert_true(holds(&o, "POLYLINE") && holds(&o, "500 ") && holds(&o, "1000"));
    object_done(&o), end(&w);
    w = begin((dicom_film){0}); /* no window: that from the least to the greatest value */
    o = build_good(&w, 2);
    expect_text(&o, RZ_TAG(0x2050, 0x0020), "IDENTITY");
    assert_true(holds(&o, "4096"));
    for (size_t i = 0; i < 12; i++) w.map[i] = 3;
    made flat = build_good(&w, 2); /* nothing is hot */
    assert_false(holds(&flat, "POLYLINE"));
    object_done(&flat), object_done(&o), end(&w);
    w = begin((dicom_film){.voi_table = true});
    o = build_good(&w, 2);
    assert_true(radz_dicom_size(o.d) > 8192); /* the film's own table */
    object_done(&o), end(&w);
    radz_dicom *d;
    w = begin((dicom_film){.rgb = true});
    assert_int_equal(build(&w, 2, &d), RADZ_E_UNSUPPORTED);
    end(&w);
}

/* ---- What is refused ---- */

static void refuse(const work *w, size_t kind, radz_status status, const char *words)
{
    radz_dicom *d = (radz_dicom *)w;
    const radz_status got = build(w, kind, &d);
    if (got != status || !strstr(err.message, words)) fail_msg("%s: %d, \"%s\"", words, (int)got, err.message);
    assert_null(d);
    assert_null(strstr(err.message, "Doe"));
}

static void test_refused_sources(void **state)
{
    (void)state;
    static const uint32_t needed[] = {RZ_TAG(0x0020, 0x000d), RZ_TAG(0x0020, 0x000e), RZ_TAG(0x0008, 0x0018),
                                      RZ_TAG(0x0008, 0x0016)};
    static const char *const names[] = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"};
    for (size_t i = 0; i < RZ_COUNT(needed); i++)
        for (size_t k = 0; k < N_KINDS; k++) {
            work w = begin((dicom_film){.without = needed[i]});
            refuse(&w, k, RADZ_E_FORMAT, names[i]);
            end(&w);
        }
    work w = begin((dicom_film){.study = NAME}), other = begin((dicom_film){.view = "PA"});
    refuse(&w, 0, RADZ_E_FORMAT, "StudyInstanceUID");
    radz_result *swap = w.result;
    w.result = other.result;
    refuse(&w, 0, RADZ_E_MISMATCH, "another film");
    w.result = swap;
    radz_image_close(w.image);
    size_t n;
    uint8_t *png = fixture_png_bytes(20, 20, 1, 1, &n);
    good(radz_image_open_memory(runtime, png, n, &w.image, &err));
    assert_false(radz_image_is_dicom(w.image));
    refuse(&w, 0, RADZ_E_ARGUMENT, "no DICOM file");
    free(png);
    end(&w), end(&other);
}

static void test_refused_options(void **state)
{
    (void)state;
    work w = begin((dicom_film){0});
    const radz_dicom_options fine = w.o;
    w.o.threshold = 1.5;
    refuse(&w, 0, RADZ_E_ARGUMENT, "threshold");
    w.o = fine, w.o.outline = 0;
    refuse(&w, 2, RADZ_E_ARGUMENT, "outline");
    w.o = fine, w.o.date_time = "now";
    refuse(&w, 0, RADZ_E_ARGUMENT, "date_time");
    w.o = fine, w.o.n_thresholds = 1;
    refuse(&w, 0, RADZ_E_ARGUMENT, "n_thresholds");
    w.o = fine, w.o.instance_uid = "1..2";
    refuse(&w, 0, RADZ_E_ARGUMENT, "instance_uid");
    w.o = fine, w.o.labels = fixture_path(dir, "nowhere");
    refuse(&w, 0, RADZ_E_IO, "nowhere");
    w.o = fine;
    for (size_t i = 0; i < 12; i++) w.map[i] = NAN;
    refuse(&w, 1, RADZ_E_ARGUMENT, "finite");
    refuse(&w, 2, RADZ_E_ARGUMENT, "finite");
    radz_dicom *d;
    assert_int_equal(radz_dicom_build_sc(w.image, w.result, "Hernia", w.map, NULL, &d, &err), RADZ_E_ARGUMENT);
    assert_non_null(strstr(err.message, "Hernia"));
    assert_int_equal(radz_dicom_build_sc(w.image, NULL, "Effusion", w.map, NULL, &d, &err), RADZ_E_ARGUMENT);
    assert_int_equal(radz_dicom_build_sr(NULL, w.result, NULL, &d, &err), RADZ_E_ARGUMENT);
    end(&w);
}

/* ---- Saving ---- */

static size_t count_files(const char *path)
{
    size_t n = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.' || strstr(e->d_name, "radz");
    if (d) closedir(d);
    return n;
}

static void test_saved_whole_or_not(void **state)
{
    (void)state;
    work w = begin((dicom_film){0});
    made o = build_good(&w, 0);
    const char *folder = fixture_path(dir, "out"), *path = fixture_path(dir, "out/sr.dcm");
    size_t n;
    assert_int_equal(mkdir(folder, 0700), 0);
    good(radz_dicom_save(o.d, path, &err));
    char *bytes = fixture_read(path, &n);
    assert_int_equal(n, radz_dicom_size(o.d));
    assert_memory_equal(bytes, radz_dicom_bytes(o.d), n);
    free(bytes);
    assert_int_equal(radz_dicom_save(o.d, fixture_path(dir, "nowhere/sr.dcm"), &err), RADZ_E_IO);
    assert_int_equal(radz_dicom_save(o.d, folder, &err), RADZ_E_IO);
    assert_int_equal(count_files(folder), 1);
    object_done(&o), end(&w);
}

/* ---- No memory ---- */

typedef struct bare {
    rz_film film;
    rz_result result;
    radz_dicom_options o;
    float map[12];
    size_t kind;
} bare;

static radz_status build_with(const rz_host *host, void *arg)
{
    const bare *b = arg;
    rz_object object;
    radz_error e;
    const rz_object_ask ask = {host, &b->film, &b->result, b->kind ? "Effusion" : NULL, b->map, &b->o};
    const radz_status status = rz_object_build(&ask, (rz_object_kind)b->kind, &object, &e);
    if (status == RADZ_OK) rz_object_free(&object);
    return status;
}

static radz_status read_with(const rz_host *host, void *arg)
{
    const dicom_file *f = arg;
    rz_film film;
    radz_error e;
    const radz_status status = rz_film_decode(host, f->bytes, f->n, "film", &film, &e);
    if (status == RADZ_OK) rz_film_free(host, &film);
    return status;
}

static void test_no_memory(void **state)
{
    (void)state;
    dicom_file f = dicom_make((dicom_film){.identified = true, .voi_table = true});
    failing_host_try_all(read_with, &f);
    rz_score score = {.probability = .5, .threshold = (double)NAN};
    char effusion[] = "Effusion", *label = effusion, name[] = "m";
    bare b = {.result = {.n = 1, .scores = &score, .labels = &label, .model_name = name}, .map = {0, 1}};
    radz_dicom_options_init(&b.o);
    b.o.date_time = "20260102030405";
    good(rz_film_decode(NULL, f.bytes, f.n, "film", &b.film, &err));
    memcpy(b.result.sha256, b.film.sha256, 65);
    for (b.kind = 0; b.kind < N_KINDS; b.kind++) failing_host_try_all(build_with, &b);
    rz_film_free(NULL, &b.film);
}

/* ---- What others say of them ---- */

static int run_command(const char *command, const char *path, char *out, size_t n_out)
{
    char line[1024];
    snprintf(line, sizeof line, "%s '%s' 2>&1", command, path);
    FILE *p = popen(line, "r");
    assert_non_null(p);
    const size_t n = fread(out, 1, n_out - 1, p);
    out[n] = 0;
    return pclose(p);
}

static bool is_there(const char *program)
{
    char command[256];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
    return system(command) == 0;
}

/* Every kind of object of every kind of film, as files: calls judge(kind, path). */
static void for_all_objects(void (*judge)(size_t kind, const char *path))
{
    const dicom_film films[] = {
        {.part = "CHEST"},
        {.syntax = BIG, .photometric = "MONOCHROME1", .center = "500", .width = "1000", .age = "81"},
        {.voi_table = true, .charset = "ISO_IR 100", .name = "M\xfcller^J", .zone = "-0500"},
        {.slope = "2", .intercept = "-1", .frames = "1", .view = "LL", .burned = "NO"}};
    for (size_t i = 0; i < RZ_COUNT(films); i++) {
        work w = begin(films[i]);
        w.o.threshold = i % 2 ? .5 : (double)NAN;
        w.o.institution = i ? "General" : NULL;
        for (size_t k = 0; k < N_KINDS; k++) {
            radz_dicom *d;
            const char *path = fixture_path(dir, kinds[k]);
            good(build(&w, k, &d));
            good(radz_dicom_save(d, path, &err));
            radz_dicom_close(d);
            judge(k, path);
        }
        end(&w);
    }
}

static char said[1 << 20];

static void judge_dciodvfy(size_t kind, const char *path)
{
    (void)kind;
    run_command("dciodvfy", path, said, sizeof said);
    if (strstr(said, "Error")) fail_msg("%s: %s", kinds[kind], said);
}

static void test_dciodvfy(void **state)
{
    (void)state;
    if (!is_there("dciodvfy")) skip();
    for_all_objects(judge_dciodvfy);
}

/* dcmtk's checker does not know UTF-8 and says so. */
static bool has_warning(void)
{
    for (const char *w = said; (w = strstr(w, "W: ")); w++)
        if (strncmp(w, "W: The VR checker does not support this Specific Character Set", 62)) return true;
    return false;
}

static void judge_dcmtk(size_t kind, const char *path)
{
    static const char *const programs[] = {"dsrdump -Ec", "dcm2pnm -v -im", "dcmpschk -v"};
    char command[512];
    snprintf(command, sizeof command, "%s", programs[kind]);
    if (run_command(command, path, said, sizeof said)) fail_msg("%s: %s", kinds[kind], said);
    if (kind == 2 && !strstr(said, "Test passed")) fail_msg("%s", said);
    if (kind == 0 && (!strstr(said, "Certainty of Finding") || has_warning())) fail_msg("%s", said);
    if (run_command("dcmdump -E -q", path, said, sizeof said)) fail_msg("%s: %s", kinds[kind], said);
}

static void test_dcmtk(void **state)
{
    (void)state;
    if (!is_there("dsrdump") || !is_there("dcmpschk") || !is_there("dcm2pnm")) skip();
    for_all_objects(judge_dcmtk);
}

/* Starting Java takes seconds: one report. */
static void test_pixelmed(void **state)
{
    (void)state;
    if (!is_there("DicomSRValidator")) skip();
    work w = begin((dicom_film){.view = "LL"});
    w.o.threshold = .5;
    made o = build_good(&w, 0);
    const char *path = fixture_path(dir, "sr");
    good(radz_dicom_save(o.d, path, &err));
    run_command("JAVA_TOOL_OPTIONS='-Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0 "
                "-Djdk.xml.xpathExprGrpLimit=0' DicomSRValidator",
                path, said, sizeof said);
    if (!strstr(said, "TID_1500") || !strstr(said, "IOD validation complete") || strstr(said, "Error"))
        fail_msg("%s", said);
    object_done(&o), end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uids_of_texts),
        cmocka_unit_test(test_made_again_it_is_the_same),
        cmocka_unit_test(test_other_films_have_other_uids),
        cmocka_unit_test(test_patient_and_study_are_the_films),
        cmocka_unit_test(test_missing_and_wrong_values),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_date_and_zone),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_codes),
        cmocka_unit_test(test_shipped_table),
        cmocka_unit_test(test_picture),
        cmocka_unit_test(test_large_films_are_made_smaller),
        cmocka_unit_test(test_presentation_state),
        cmocka_unit_test(test_refused_sources),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_saved_whole_or_not),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_dciodvfy),
        cmocka_unit_test(test_dcmtk),
        cmocka_unit_test(test_pixelmed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* radz-train - trains a LLaVA-RadZ on films listed in a CSV file. Uses radz.h only.
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common.h"
#include "processes.h"
#include "progress.h"

enum { EXIT_FAILED = 1, EXIT_INTERRUPTED = 130 };

static const char usage_text[] = "usage: radz-train --model DIR --manifest CSV --out DIR --diseases FILE [options]\n";

static const char help_text[] =
    "\n"
    "Trains a LLaVA-RadZ. A model directory without weights is initialised at random from --seed.\n"
    "\n"
    "  --model DIR            where to start: config.json, tokenizer.model, radz.json, weights if any\n"
    "  --manifest CSV         films: columns path, labels ('|' between them); optional split, set, text\n"
    "  --images DIR           folder that the paths are relative to (default: the manifest's)\n"
    "  --out DIR              the best model so far (see --keep); checkpoint/ while training\n"
    "  --diseases FILE        \"label: description\" per line: the anchors\n"
    "  --label-map CSV        columns from,to: renames labels; an empty `to` drops one\n"
    "\n"
    "  --epochs N             passes over the films (2)\n"
    "  --batch N              films of one step (64)\n"
    "  --lr X                 highest learning rate (2e-5)\n"
    "  --weight-decay X       (0)\n"
    "  --warmup X             fraction of the steps with a rising learning rate (0.03)\n"
    "  --clip X               largest norm of the gradient, 0: any (1)\n"
    "  --lambda X             weight of L_CA against L_CG (0.5)\n"
    "  --tau X                temperature (the model's own)\n"
    "  --learn-tau            train the temperature\n"
    "  --features NAME        what L_CA pairs: cross (default), global, local\n"
    "  --targets NAME         of L_CG: labels (default), batch-index (the authors' code)\n"
    "  --vectors NAME         how vectors are made and scored: paper, refcode (as --settings says)\n"
    "  --no-mask              films with the same labels are negatives of each other\n"
    "  --no-balance           draw every film equally often\n"
    "  --set-weights LIST     draw films of a set more or less often: nih=2,toy=0.5\n"
    "  --augment NAME         how films are varied: none, light (default), strong\n"
    "  --no-augment           as --augment none\n"
    "  --drop-path X          share of films that skip a branch of the tower's last block (0)\n"
    "  --ema X                decay of an average of the weights, which is what is written (0: none)\n"
    "  --seed N               (0)\n"
    "  --dtype f32|bf16       of the weights written (f32)\n"
    "  --label-fraction X     share of the training rows, by seed, in proportion of the label sets (1)\n"
    "  --preset NAME          paper (default), refcode: as the authors' code; other options still change it\n"
    "\n"
    "  --objective NAME       radz (default), generate, classify\n"
    "  --settings FILE        like radz.json: layer, special tokens, heads, prompts (the model's own)\n"
    "  --train LIST           parts whose own weights change: tower,projector,decoder or none (with LoRA none)\n"
    "  --lora-rank N          0: no LoRA (128 for a model with weights)\n"
    "  --lora-alpha X, --lora-dropout X, --lora-rslora, --lora-targets LIST   (256, 0.05, no, all)\n"
    "  --merge-lora           write whole weights instead of an adapter\n"
    "\n"
    "  --micro-batch N        items that go through the network at once; 0: all of a batch (0)\n"
    "  --accumulate N         batches of one step (1)\n"
    "  --recompute            less memory, more time\n"
    "  --weights f32|bf16     of the trained weights in memory (f32)\n"
    "  --film-cache SIZE      memory for decoded films, 2G, 500M; 0: none (1G)\n"
    "  --dry-run              print what the run will take: rows, steps, memory, time; write nothing\n"
    "\n"
    "  --validate-every N     steps between validations (only at the end)\n"
    "  --monitor LABEL        label whose AUC picks the best model (mean over the labels)\n"
    "  --monitor-set SET      on this set's films only\n"
    "  --keep best|last       what a validation writes: the model if it is the best (default), or in any case\n"
    "  --checkpoint-every N   steps between checkpoints (only at the end)\n"
    "  --log FILE             one JSON object per step, validation, checkpoint (train.jsonl in --out)\n"
    "  --stop-on-bad-row      a row or film that cannot be read ends the run (counted, left out)\n"
    "  --resume               go on from the checkpoint in --out, if there is one\n"
    "  --stop-after N         save a checkpoint and stop after so many steps in all\n"
    "\n"
    "  --threads N            (all cores)\n"
    "  --device auto|cpu|cuda|cuda:N\n"
    "  --quiet                no progress\n"
    "  --help, --version\n"
    "\n"
    "mpirun -n 2 radz-train ... trains in two processes. Ctrl-C saves a checkpoint.\n"
    "Exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n";

/* ---- Command line -------------------------------------------------------------------------- */

typedef struct settings {
    radz_train_options train;
    radz_runtime_options runtime;
    bool quiet, dry_run;
    const char *log, *preset, *film_cache;
    const char *memory; /* of the other programs; there is no such training */
} settings;

/* The preset goes first, so that what is given besides it wins. 0, or an exit status. */
static int take_preset(int argc, char **argv, radz_train_options *t)
{
    radz_error err;
    const char *name = early_value(argc, argv, "preset");
    if (name && radz_train_options_preset(t, name, &err)) return usage("%s", err.message);
    return 0;
}

/* 0, or the exit status. */
static int take_film_cache(settings *s)
{
    if (!s->film_cache) return 0;
    s->train.film_cache_bytes = (int64_t)parse_size(s->film_cache);
    if (s->train.film_cache_bytes || !strcmp(s->film_cache, "0")) return 0;
    return usage("--film-cache: expected a size such as 2G or 500M, got %s", s->film_cache);
}

/* 0, or the exit status. */
static int read_command_line(int argc, char **argv, settings *s)
{
    radz_train_options *t = &s->train;
    radz_train_options_init(t);
    radz_runtime_options_init(&s->runtime);
    int preset = take_preset(argc, argv, t);
    if (preset) return preset;
    option_entry options[] = {
        {"preset", .text = &s->preset, .words = "paper|refcode"},
        {"objective", .text = &t->objective},
        {"settings", .text = &t->settings},
        {"train", .text = &t->train},
        {"lora-rank", .integer = &t->lora_rank, .max = 65536},
        {"lora-alpha", .real = &t->lora_alpha},
        {"lora-dropout", .real = &t->lora_dropout, .max = 1},
        {"lora-rslora", .on = &t->lora_rslora},
        {"lora-targets", .text = &t->lora_targets},
        {"merge-lora", .on = &t->merge_lora},
        {"label-fraction", .real = &t->label_fraction, .max = 1},
        {"features", .text = &t->features, .words = "cross|global|local"},
        {"targets", .text = &t->targets, .words = "labels|batch-index"},
        {"vectors", .text = &t->vectors, .words = "paper|refcode"},
        {"micro-batch", .integer = &t->micro_batch, .max = 1000000},
        {"accumulate", .integer = &t->accumulate, .min = 1, .max = 1000000},
        {"recompute", .on = &t->recompute},
        {"weights", .text = &t->weights},
        {"memory", .text = &s->memory},
        {"ema", .real = &t->ema, .max = 0.9999999},
        {"keep", .text = &t->keep, .words = "best|last"},
        {"set-weights", .text = &t->set_weights},
        {"drop-path", .real = &t->drop_path, .max = 0.9},
        {"film-cache", .text = &s->film_cache},
        {"stop-on-bad-row", .on = &t->stop_on_bad_row},
        {"log", .text = &s->log},
        {"dry-run", .flag = &s->dry_run},
        {"model", .text = &t->model_dir, .required = true},
        {"manifest", .text = &t->manifest, .required = true},
        {"images", .text = &t->image_root},
        {"out", .text = &t->out_dir, .required = true},
        {"diseases", .text = &t->diseases, .required = true},
        {"label-map", .text = &t->label_map},
        {"epochs", .real = &t->epochs, .min = 1e-6},
        {"batch", .integer = &t->batch_size, .min = 1, .max = 1000000},
        {"lr", .real = &t->lr},
        {"weight-decay", .real = &t->weight_decay},
        {"warmup", .real = &t->warmup_fraction, .max = 1},
        {"clip", .real = &t->clip_norm},
        {"lambda", .real = &t->lambda},
        {"tau", .real = &t->tau, .min = 0.01},
        {"learn-tau", .on = &t->learn_tau},
        {"no-mask", .off = &t->mask_false_negatives},
        {"no-balance", .off = &t->balance_sets},
        {"augment", .choice = &t->augment, .words = "none|light|strong"},
        {"no-augment", .off = &t->augment},
        {"seed", .unsigned64 = &t->seed},
        {"dtype", .text = &t->dtype, .words = "f32|bf16"},
        {"validate-every", .integer64 = &t->validate_every},
        {"monitor", .text = &t->monitor},
        {"monitor-set", .text = &t->monitor_set},
        {"checkpoint-every", .integer64 = &t->checkpoint_every},
        {"resume", .on = &t->resume},
        {"stop-after", .integer64 = &t->stop_after_steps, .min = 1},
        {"threads", .integer = &s->runtime.n_threads, .max = 1024},
        {"device", .text = &s->runtime.device, .words = "auto|cpu|cuda|cuda:N"},
        {"quiet", .flag = &s->quiet},
    };
    int n_inputs, status = parse_command_line(options, COUNT(options), argc, argv, &n_inputs);
    if (!strcmp(t->targets, "batch-index")) t->targets = "batch_index";
    if (!status && s->memory)
        return usage("--memory: weights that are read as they are needed cannot be trained; what takes less memory is "
                     "--micro-batch, --recompute, --weights bf16, or LoRA on a model that radz-quantize wrote");
    if (!status) status = take_film_cache(s);
    if (!status && n_inputs) return usage("films come from the manifest: what is %s?", argv[0]);
    return status;
}

/* ---- Progress --------------------------------------------------------------------------------- */

typedef struct display {
    int quiet, terminal, line_open; /* line_open: the bar stands on the current line */
    double last;                    /* when something was shown */
    const char *out_dir, *log_path; /* log_path NULL: train.jsonl in out_dir */
    FILE *log;
    int log_failed;
    int rank, opened; /* process 0 alone shows progress and writes the log */
    int writes;       /* objective "generate": validation is a likelihood, no AUC */
} display;

static void end_line(display *d)
{
    if (d->line_open) fputc('\n', stderr);
    d->line_open = 0;
}

static void show_figures(const radz_train_progress *p)
{
    char left[32];
    format_time(left, sizeof left, p->seconds_left);
    fprintf(stderr,
            "step %lld/%lld  epoch %.2f  loss %.4f (CA %.4f, CG %.4f)  tau %.3f  lr %.2e  %.1f films/s  %s left",
            (long long)p->step, (long long)p->n_steps, p->epoch, p->loss, p->loss_ca, p->loss_cg, p->tau, p->lr,
            p->items_per_second, left);
}

static void show_bar(display *d, const radz_train_progress *p)
{
    char bar[21];
    int done = (int)(20 * p->step / p->n_steps);
    for (int i = 0; i < 20; i++) bar[i] = i < done ? '#' : '.';
    bar[20] = '\0';
    fprintf(stderr, "\r\033[K[%s] ", bar);
    show_figures(p);
    fflush(stderr);
    d->line_open = 1;
}

static void show_validation(display *d, const radz_train_progress *p)
{
    end_line(d);
    fprintf(stderr, "step %lld: validation ", (long long)p->step);
    if (d->writes)
        fprintf(stderr, "likelihood %.4f per token", p->val_auc);
    else
        fprintf(stderr, "AUC %.4f, mean over labels %.4f", p->val_auc, p->val_macro_auc);
    if (p->n_bad_rows) fprintf(stderr, " (%lld films could not be read)", (long long)p->n_bad_rows);
    fputc('\n', stderr);
}

/* Copies the lines of steps that will not be done again; one that was cut off is dropped. */
static int copy_lines(FILE *from, FILE *to, int64_t first_step)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, from)) > 0) {
        long long step = 0;
        if (line[n - 1] == '\n' && sscanf(line, "{\"step\":%lld", &step) == 1 && step < first_step) fputs(line, to);
    }
    free(line);
    return !ferror(from) && !ferror(to);
}

/* The log as it was before first_step, in a new file that takes its place when it is whole. */
static int keep_lines(const char *path, const char *next, int64_t first_step)
{
    FILE *from = fopen(path, "r");
    struct stat st;
    if (!from) return errno == ENOENT;
    if (!fstat(fileno(from), &st) && !S_ISREG(st.st_mode)) return !fclose(from); /* /dev/stderr, a pipe */
    FILE *to = fopen(next, "w");
    int good = to && copy_lines(from, to, first_step) && !fflush(to) && !fsync(fileno(to));
    fclose(from);
    if (to && fclose(to)) good = 0;
    if (good && !rename(next, path)) return 1;
    if (to) remove(next);
    return 0;
}

static void open_log(display *d, int64_t first_step)
{
    size_t n = strlen(d->log_path ? d->log_path : d->out_dir) + 32;
    char *path = need(malloc(n)), *next = need(malloc(n));
    if (d->log_path)
        snprintf(path, n, "%s", d->log_path);
    else
        snprintf(path, n, "%s/train.jsonl", d->out_dir);
    snprintf(next, n, "%s.new", path);
    errno = 0;
    if (keep_lines(path, next, first_step)) d->log = fopen(path, "a");
    d->log_failed = !d->log;
    if (d->log_failed)
        complain("%s: cannot be written: %s; training goes on without a log", path, strerror(errno ? errno : EIO));
    free(path);
    free(next);
}

static void log_number(FILE *f, const char *name, double v)
{
    if (v - v == 0)
        fprintf(f, ",\"%s\":%.9g", name, v);
    else
        fprintf(f, ",\"%s\":null", name);
}

static void log_progress(display *d, const radz_train_progress *p)
{
    if (!d->log && !d->log_failed) open_log(d, p->step);
    if (!d->log) return;
    fprintf(d->log, "{\"step\":%lld,\"steps\":%lld", (long long)p->step, (long long)p->n_steps);
    log_number(d->log, "epoch", p->epoch);
    log_number(d->log, "loss", p->loss);
    log_number(d->log, "loss_ca", p->loss_ca);
    log_number(d->log, "loss_cg", p->loss_cg);
    log_number(d->log, "grad_norm", p->grad_norm);
    log_number(d->log, "lr", p->lr);
    log_number(d->log, "tau", p->tau);
    fprintf(d->log, ",\"bad_rows\":%lld}\n", (long long)p->n_bad_rows);
    if (p->has_validation) {
        fprintf(d->log, "{\"step\":%lld,\"event\":\"validation\"", (long long)p->step);
        log_number(d->log, "auc", p->val_auc);
        log_number(d->log, "macro_auc", p->val_macro_auc);
        fputs("}\n", d->log);
    }
    if (p->checkpoint) fprintf(d->log, "{\"step\":%lld,\"event\":\"checkpoint\"}\n", (long long)p->step);
    /* before a checkpoint also to the disk: the log must not be behind what a later run goes on from */
    if (fflush(d->log) || ferror(d->log) || (p->checkpoint && fsync(fileno(d->log)) && errno != EINVAL)) {
        complain("the log cannot be written: %s; training goes on without it", strerror(errno));
        fclose(d->log);
        d->log = NULL, d->log_failed = 1;
    }
}

static int on_progress(const radz_train_progress *p, void *user)
{
    display *d = user;
    if (d->rank) return interrupted;
    log_progress(d, p);
    double t = now();
    int due = t - d->last >= (d->terminal ? 0.2 : 10.0) || p->step == 1 || p->step == p->n_steps;
    if (!d->quiet && (due || p->has_validation)) {
        if (d->terminal) {
            show_bar(d, p);
        } else {
            show_figures(p);
            fputc('\n', stderr);
        }
        d->last = t;
    }
    if (!d->quiet && p->has_validation) show_validation(d, p);
    return interrupted;
}

static void on_log(radz_log_level level, const char *message, void *user)
{
    display *d = user;
    if (level < RADZ_LOG_INFO || (d->quiet && level < RADZ_LOG_WARNING)) return;
    /* All say the same of the files; of a film only the process that reads it can. */
    if (d->rank && (!d->opened || level < RADZ_LOG_WARNING)) return;
    end_line(d);
    complain("%s", message);
}

/* ---- Main ------------------------------------------------------------------------------------------ */

static int fail(display *d, const radz_error *err)
{
    end_line(d);
    complain("%s", err->message);
    return EXIT_FAILED;
}

static void print_bytes(const char *what, uint64_t n)
{
    printf("  %-12s %10.1f MB\n", what, (double)n / 1e6);
}

static void print_counts(const radz_train_plan *p)
{
    printf("Rows: %lld to train on, %lld to validate on, %lld without a known label, %lld that cannot be used\n",
           (long long)p->n_train, (long long)p->n_val, (long long)p->n_left_out, (long long)p->n_bad_rows);
    printf("Parameters: %llu, of which %llu are trained\nMemory, about:\n", (unsigned long long)p->n_parameters,
           (unsigned long long)p->n_trained);
    print_bytes("program", p->process_bytes);
    print_bytes("weights", p->weight_bytes);
    print_bytes("optimiser", p->optimizer_bytes);
    print_bytes("films", p->film_bytes);
    printf("  %-12s %10.1f MB guessed; one step is measured now\n", "activations", (double)p->activation_bytes / 1e6);
    fflush(stdout);
}

/* What needs no step first: a large model takes its time for one. */
static radz_status print_plan(radz_trainer *trainer, int silent, radz_error *err)
{
    radz_train_plan p = {.struct_size = sizeof p};
    radz_status code = radz_trainer_plan(trainer, 0, &p, err);
    if (!code && !silent) print_counts(&p);
    if (!code) code = radz_trainer_plan(trainer, 1, &p, err);
    if (code || silent) return code;
    char time[32];
    format_time(time, sizeof time, p.seconds_per_step * (double)p.n_steps);
    print_bytes("activations", p.activation_bytes);
    print_bytes("in all", p.process_bytes + p.weight_bytes + p.optimizer_bytes + p.film_bytes + p.activation_bytes);
    printf("Time: %lld steps of %.2f s: %s without validation\n", (long long)p.n_steps, p.seconds_per_step, time);
    return RADZ_OK;
}

/* Says how it ended; the exit status. All processes know of every failure, and the first one says it. */
static int report_end(const settings *s, display *d, radz_status code, const radz_error *err)
{
    if (d->rank) return code == RADZ_E_CANCELLED ? EXIT_INTERRUPTED : code ? EXIT_FAILED : 0;
    end_line(d);
    if (code && code != RADZ_E_CANCELLED) return fail(d, err);
    if (code) {
        complain("%s", err->message);
        fputs("The same command with --resume goes on from there.\n", stderr);
        return EXIT_INTERRUPTED;
    }
    if (!d->quiet && !s->dry_run) fprintf(stderr, "Model: %s\n%s\n", s->train.out_dir, radz_disclaimer());
    return 0;
}

/* The exit status, negative when the other processes do not know. */
static int train(settings *s, display *d)
{
    radz_error err;
    radz_runtime *runtime;
    radz_trainer *trainer = NULL;
    if (radz_runtime_create(&s->runtime, &runtime, &err)) return -fail(d, &err);
    catch_interrupts(s->train.comm != NULL);
    radz_status code = radz_trainer_open(runtime, &s->train, &trainer, &err);
    d->opened = 1;
    if (!code) code = s->dry_run ? print_plan(trainer, d->rank, &err) : radz_trainer_run(trainer, &err);
    int status = report_end(s, d, code, &err);
    if (d->log) fclose(d->log);
    radz_trainer_close(trainer);
    radz_runtime_close(runtime);
    return status;
}

int main(int argc, char **argv)
{
    settings s;
    memset(&s, 0, sizeof s);
    program_name = "radz-train", program_usage = usage_text, program_help = help_text;
    int status = begin_program();
    if (!status) status = read_command_line(argc, argv, &s);
    if (status) return status;
    processes p;
    status = join_processes(&p);
    if (status) return status;
    display d = {.quiet = s.quiet,
                 .terminal = on_terminal(),
                 .last = -1e9,
                 .out_dir = s.train.out_dir,
                 .log_path = s.log,
                 .rank = p.comm.rank,
                 .writes = s.train.objective && !strcmp(s.train.objective, "generate")};
    s.train.progress_fn = on_progress;
    s.train.user = &d;
    s.runtime.log_fn = on_log;
    s.runtime.user = &d;
    if (p.comm.size > 1) s.train.comm = &p.comm;
    if (p.n_local > 1 && !s.runtime.n_threads) s.runtime.n_threads = share_cores(&p);
    status = train(&s, &d);
    leave_processes(&p, status < 0 ? -status : 0);
    return status < 0 ? -status : status;
}

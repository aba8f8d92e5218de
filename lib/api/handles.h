/* handles.h - what stands behind the public handles, and the checks every public function starts with.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_HANDLES_H
#define RZ_HANDLES_H

#include <pthread.h>
#include <stdatomic.h>

#include "bank.h"
#include "embed.h"
#include "model.h"
#include "result.h"

/* First member of every handle: who shares it, and which process made it. */
typedef struct rz_handle {
    atomic_size_t refs;
    long pid;
} rz_handle;
void rz_handle_init(rz_handle *h); /* one reference */
void rz_handle_hold(rz_handle *h);
/* True when the last reference went, in the process that made it: release what it holds. In a forked child
 * nothing is ever released: the threads are gone and the locks may be held. */
bool rz_handle_drop(rz_handle *h);
/* RADZ_E_ARGUMENT for NULL, RADZ_E_STATE after a fork. */
radz_status rz_handle_check(const rz_handle *h, const char *function, const char *name, radz_error *err) RZ_CHECK;

struct radz_runtime {
    rz_handle h;
    rz_host host;   /* &runtime->host is the host of everything made with the runtime */
    rz_device *dev; /* its pool: rz_device_pool */
    /* For the CPU beside a GPU: */
    bool any_device;
    int n_threads;
    pthread_mutex_t lock; /* of: */
    rz_device *cpu;
};
struct radz_model {
    rz_handle h;
    radz_runtime *runtime; /* held */
    rz_model *net;
    char *name;
    char adapter_hash[65]; /* "": no adapter */
    char *weights;         /* what the weights were turned into; NULL: nothing else */
};
struct radz_session {
    rz_handle h;
    radz_model *model; /* held */
    rz_net net;        /* model, stream and cancel hook, ready for lib/tasks */
    bool strict;       /* films that their own file speaks against are refused */
    rz_bank *own_bank; /* the model's bank, once it has been asked for; else NULL */
};
struct radz_image {
    rz_handle h;
    radz_runtime *runtime; /* held, or NULL */
    rz_film film;
};
struct radz_bank {
    rz_handle h;
    radz_runtime *runtime; /* held */
    rz_bank *bank;
};
struct radz_result {
    rz_handle h;
    radz_runtime *runtime; /* held */
    rz_result *result;
};

/* The host behind a runtime that may be NULL. */
static inline const rz_host *rz_runtime_host(const radz_runtime *r)
{
    return r ? &r->host : NULL;
}
/* runtime->dev where that is the CPU, else a CPU beside it, opened at the first call. */
radz_status rz_runtime_cpu(radz_runtime *runtime, rz_device **cpu, radz_error *err) RZ_CHECK;
/* Where runtime->dev will not do for a model: the CPU, if that was a GPU that "auto" took. Logs why. */
bool rz_runtime_fall_back(radz_runtime *runtime, const char *why, rz_device **cpu);
/* Adds a reference to `runtime`, or makes a private one with default options when it is NULL. */
radz_status rz_runtime_share(radz_runtime *runtime, radz_runtime **out, radz_error *err) RZ_CHECK;

/* Fills the caller's struct, which may be older and shorter than `defaults` or newer and longer, and sets its
 * struct_size. Nothing is written past struct_size. */
void rz_options_give(void *options, size_t struct_size, const void *defaults, size_t known_size);
/* Lays the caller's options over `known`, which holds the defaults: a smaller struct_size is an older caller, a larger
 * one a newer caller who may use only fields we know (the rest must be zero). Both structs start with struct_size. */
radz_status rz_options_take(void *known, size_t known_size, const void *options, const char *function,
                            radz_error *err) RZ_CHECK;

/* RADZ_E_ARGUMENT for a size that no struct of ours can have: memory that was never initialised. */
radz_status rz_struct_size_check(size_t given, const char *function, const char *name, radz_error *err) RZ_CHECK;

/* RADZ_E_ARGUMENT for a number that is none of them. */
radz_status rz_tower_source_of(radz_vision_source given, const char *function, rz_tower_source *out,
                               radz_error *err) RZ_CHECK;

/* The films behind images, each checked; *films is from rz_malloc(host), NULL on failure. */
radz_status rz_images_films(const rz_host *host, const radz_image *const *images, size_t n, const char *function,
                            const rz_film ***films, radz_error *err) RZ_CHECK;

/* The bank behind one that may be NULL: the one in the model's directory; of a model that was never trained as a
 * LLaVA-RadZ and has none, common findings by name. It belongs to the caller's handle or to the session. */
radz_status rz_session_bank(radz_session *session, const radz_bank *bank, const rz_bank **used,
                            radz_error *err) RZ_CHECK;

/* s, which is freed, as a text for radz_text_free. */
radz_status rz_text_out(const rz_host *host, rz_str *s, char **text, radz_error *err) RZ_CHECK;

/* For public functions, which all have `err` as a parameter. */
#define RZ_NEED(p)                                                                                                     \
    do {                                                                                                               \
        if (!(p)) return rz_fail(err, RADZ_E_ARGUMENT, "%s: %s is NULL", __func__, #p);                                \
    } while (0)
#define RZ_LIVE(handle) RZ_TRY(rz_handle_check((handle) ? &(handle)->h : NULL, __func__, #handle, err))
/* An optional handle: NULL is fine. */
#define RZ_LIVE_OR_NULL(handle)                                                                                        \
    do {                                                                                                               \
        if (handle) RZ_LIVE(handle);                                                                                   \
    } while (0)

#endif

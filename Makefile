# libradz. Start with `make help`. SPDX-License-Identifier: Apache-2.0
#
#   make demo      install what is missing, build, classify a real film with the model that ships
#   make check     build and pass every test
#
# V=1 shows commands. BUILD=release|debug|asan|ubsan|tsan picks flags; each set has its own object folder.

VERSION := $(shell awk '/define RADZ_VERSION_(MAJOR|MINOR|PATCH)/ {printf "%s%s", s, $$3; s="."}' include/radz.h)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))

CC ?= cc
AR ?= ar
PKG_CONFIG ?= pkg-config
PREFIX ?= /usr/local
BUILD ?= release
O := build/$(BUILD)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-8s %s\n' '$(1)' '$(2)')

CFLAGS_release := -O3 -g
CFLAGS_debug := -O0 -g
CFLAGS_asan := -O1 -g -fsanitize=address -fno-omit-frame-pointer
CFLAGS_ubsan := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
CFLAGS_tsan := -O1 -g -fsanitize=thread

DEPS := libpng libjpeg zlib jansson
DEP_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(DEPS) 2>/dev/null)
DEP_LIBS := $(or $(shell $(PKG_CONFIG) --libs $(DEPS) 2>/dev/null),-lpng -ljpeg -lz -ljansson)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wwrite-strings -Wvla $(if $(WERROR),-Werror)
# -ffp-contract=off: the same bits from every compiler; kernels that want FMA say so themselves.
CPPFLAGS_ALL := -D_GNU_SOURCE -Iinclude $(addprefix -Ilib/,base formats compute compute/cpu network tasks api) $(DEP_CFLAGS) $(CPPFLAGS)
CFLAGS_ALL := -std=c11 $(WARN) -fPIC -fvisibility=hidden -ffp-contract=off -pthread $(CFLAGS_$(BUILD)) $(CFLAGS)
LIBS := $(DEP_LIBS) -ldl -lm -pthread

LIB_SRC := $(sort $(wildcard lib/*/*.c lib/*/*/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$O/%.o)
EXAMPLES := $(sort $(wildcard examples/*.c))
PROGRAMS := $(EXAMPLES:examples/%.c=$O/bin/%)
TESTS := $(sort $(wildcard tests/test_*.c))
TEST_BINS := $(TESTS:tests/%.c=$O/tests/%)
TEST_HELPERS := $(sort $(filter-out $(TESTS),$(wildcard tests/*.c)))

STATIC := $O/libradz.a
SHARED := $O/libradz.so.$(VERSION)

.PHONY: all lib programs tests check clean help
all: lib programs

lib: $(STATIC) $(SHARED)
programs: $(PROGRAMS)
tests: $(TEST_BINS)

# Instruction sets by file name; everything else is portable.
$O/%_avx2.o: ISA := -mavx2 -mfma -mf16c
$O/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c

$O/%.o: %.c Makefile
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(ISA) -MMD -MP -c -o $@ $<

$(STATIC): $(LIB_OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(SHARED): $(LIB_OBJ) lib/radz.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libradz.so.$(SOVERSION) -Wl,--version-script=lib/radz.map -Wl,--as-needed $(CFLAGS_ALL) $(LDFLAGS) -o $@ $(LIB_OBJ) $(LIBS)
	$(Q)ln -sf libradz.so.$(VERSION) $O/libradz.so.$(SOVERSION) && ln -sf libradz.so.$(SOVERSION) $O/libradz.so

# Programs see the public header only.
$O/examples/%.o: CPPFLAGS_ALL = -D_GNU_SOURCE -Iinclude $(CPPFLAGS)
$O/bin/%: $O/examples/%.o $(SHARED)
	$(call say,LINK,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $< -L$O -lradz -Wl,-rpath,'$$ORIGIN/..' -lm

$O/tests/%: $O/tests/%.o $(TEST_HELPERS:%.c=$O/%.o) $(STATIC)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS_ALL) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

# make check T=test_tokenizer runs one.
check: all tests
	@tests/run-tests $(if $T,$O/tests/$T,$(TEST_BINS))

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
.SECONDARY:

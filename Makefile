# SPDX-License-Identifier: Apache-2.0
# Builds Millrace: the node and its command, the client library, the tests. `make help` lists the targets.
#
# Everything made lives under $(OUT); a compiler or sanitizer of one's choice has a folder of its own there, $(B):
#     $(B)/millrace, libmillrace.{a,so}   what users get          $(B)/gen-proto  .proto copies with `string` as `bytes`
#     $(B)/obj/release   objects of those                         $(B)/gen        the C that protobuf-c makes of them
#     $(B)/obj/test      the same with -DMR_TESTING, and tests    $(B)/gen-py     the originals for Python tests
#     $(B)/obj/gen       objects of $(B)/gen                      $(B)/test/millrace, $(B)/tests/...   what tests run
# Sources are found by wildcard: a new file in one of $(DIRS), tests/ or proto/ needs no change here.

VERSION := 0.1.0
SOVERSION := 0

OUT ?= build
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
DESTDIR ?=
SANITIZE ?=
WERROR ?=
T ?=
TEST_TIMEOUT ?= 600
CFLAGS ?= -O2 -g
PROTOBUF_INCLUDE ?= /usr/include
# The directories of C sources. With a shorter list `make test T=...` builds these and the tests that T selects, without
# the node: for work on one part while another does not compile.
ALL_DIRS := proto ipc ipc/client engine/fsm engine/services engine/io engine/log engine/node engine/cli
DIRS ?= $(ALL_DIRS)

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc)
endif

# The source tree's path may contain spaces, make's own targets cannot. `make clean` removes all of $(OUT).
ifneq ($(words $(OUT)),1)
$(error OUT='$(OUT)': give it a name, without spaces)
endif
ifneq ($(shell out=$$(realpath -m -- '$(OUT)'); case '$(CURDIR)/' in ("$${out%/}"/*) echo above;; esac),)
$(error OUT=$(OUT) is the source tree or above it; name a folder of its own)
endif

# -- flags -----------------------------------------------------------------------------------------

ifeq ($(origin CC),default)
CC := gcc
endif
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),g++)
endif

# The compiler's own tools: one that compiles for another processor has others than this system's.
tool = $(shell $(CC) $(CFLAGS) -print-prog-name=$(1))
AR = $(call tool,ar)
LD = $(call tool,ld)
OBJCOPY = $(call tool,objcopy)

empty :=
space := $(empty) $(empty)
comma := ,
FLAVOR := $(subst $(space),-,$(strip $(subst /,_,$(filter-out gcc,$(CC))) $(subst $(comma),-,$(SANITIZE))))
B := $(OUT)$(addprefix /,$(FLAVOR))
ABSOLUTE_B := $(if $(filter /%,$(B)),$(B),$(CURDIR)/$(B))

WARN := -Wall -Wextra -Wconversion -Wshadow $(if $(filter 1,$(WERROR)),-Werror)
# Every object can go into the shared library, and nothing is exported that is not marked so. The archive is made by
# `ld -r` and objcopy, which know nothing of -flto's objects.
COMMON := $(CFLAGS) -fno-lto -fPIC -fvisibility=hidden -pthread
DEFINES := -D_GNU_SOURCE -DMILLRACE_VERSION=\"$(VERSION)\"
INCLUDES := -I. -Iinclude -I$(B)/gen
LIBRARIES := -luring -lprotobuf-c -lxxhash -lseccomp
CLIENT_LIBRARIES := -lprotobuf-c -lxxhash -lpthread
LINK := $(CFLAGS) $(LDFLAGS) -fno-lto -pthread -Wl,--as-needed
ifneq ($(SANITIZE),)
# clang also looks for NULL + 0, which an empty slice comes to: it has no meaning in C11, and has one in C2y and in every
# compiler.
SANITIZE_FLAGS := -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer \
	$(if $(findstring clang,$(CC)),-fno-sanitize=pointer-overflow)
COMMON += $(SANITIZE_FLAGS)
LINK += $(SANITIZE_FLAGS)
else
# The node's memory. A sanitizer brings an allocator of its own.
DEFINES += -DMILLRACE_JEMALLOC
LIBRARIES += -ljemalloc
NO_UNDEFINED := -Wl,-z,defs
endif
C_RELEASE := -std=gnu11 $(COMMON) $(WARN) $(DEFINES) $(CPPFLAGS) $(INCLUDES)
C_TEST := $(C_RELEASE) -DMR_TESTING
C_GEN := -std=gnu11 $(COMMON) -w -I$(B)/gen
# A user's program: the public headers, nothing else of ours.
C_USER := $(COMMON) $(WARN) -Iinclude

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-5s %s\n'
endif

# -- sources ---------------------------------------------------------------------------------------

MAIN := engine/cli/main.c
WHOLE := $(if $(filter $(words $(ALL_DIRS)),$(words $(filter $(ALL_DIRS),$(DIRS)))),$(wildcard $(MAIN)))
SOURCES := $(filter-out $(MAIN),$(sort $(wildcard $(addsuffix /*.c,$(DIRS)))))
LIB_SOURCES := $(filter proto/% ipc/%,$(SOURCES))
PROTOS := $(patsubst proto/%,%,$(sort $(shell find proto -name '*.proto')))
SYSTEM_PROTOS := google/protobuf/timestamp.proto google/protobuf/duration.proto
SUPPORT := $(sort $(wildcard tests/support/*.c))
TESTS := $(sort $(shell find tests/unit tests/integration tests/crash -name 'test_*.c' -o -name 'test_*.py'))
SELECTED := $(if $(T),$(foreach test,$(TESTS),$(if $(findstring $(T),$(test)),$(test))),$(TESTS))
SIM := $(sort $(wildcard tests/sim/*.c))
CRASH := $(filter-out tests/crash/crash.c tests/crash/test_%,$(sort $(wildcard tests/crash/*.c)))
EXAMPLES := $(basename $(sort $(wildcard tests/examples/*.c tests/examples/*.cc)))

GEN_NAMES := $(basename $(SYSTEM_PROTOS) $(PROTOS))
PROTO_COPIES := $(GEN_NAMES:%=$(B)/gen-proto/%.proto)
GEN_C := $(GEN_NAMES:%=$(B)/gen/%.pb-c.c)
GEN_H := $(GEN_NAMES:%=$(B)/gen/%.pb-c.h)
GEN_O := $(GEN_NAMES:%=$(B)/obj/gen/%.pb-c.o)
GEN_A := $(B)/obj/gen/libgen.a

RELEASE_O := $(SOURCES:%.c=$(B)/obj/release/%.o)
TEST_O := $(SOURCES:%.c=$(B)/obj/test/%.o)
LIB_O := $(LIB_SOURCES:%.c=$(B)/obj/release/%.o)
SUPPORT_O := $(SUPPORT:%.c=$(B)/obj/test/%.o)
CRASH_O := $(CRASH:%.c=$(B)/obj/test/%.o)
SIM_O := $(SIM:%.c=$(B)/obj/test/%.o)
NODE := $(if $(WHOLE),$(B)/millrace)
TEST_NODE := $(if $(WHOLE),$(B)/test/millrace)
LIB_A := $(B)/libmillrace.a
LIB_SO := $(B)/libmillrace.so
DEMO := $(if $(wildcard bench/demo.c),$(B)/millrace-demo $(B)/millrace-streams)
BENCH := $(B)/millrace-bench
BENCH_O := $(patsubst %.c,$(B)/obj/release/%.o,$(wildcard bench/load/*.c))
PARTS_O := $(patsubst %.c,$(B)/obj/release/%.o,$(wildcard bench/parts/*.c))
# With a node's other end for the hand-shake, which the tests have.
INSTRUCTIONS_O := $(addprefix $(B)/obj/release/,bench/instructions.o $(addprefix tests/support/,fake_node.o fake_requests.o temp_dir.o wait.o))
# What loads Redis in `make bench`, where Redis's own tools do not do it.
REDIS_LOADS := $(if $(wildcard bench/compare/redis.c),$(B)/redis-events $(B)/redis-rate)
REDIS_LOADS_O := $(patsubst %.c,$(B)/obj/release/%.o,$(wildcard bench/compare/*.c))
EXAMPLE_PROGRAMS := $(EXAMPLES:tests/examples/%=$(B)/examples/%)
TEST_PROGRAMS := $(patsubst %.c,$(B)/%,$(filter %.c,$(SELECTED)))
CRASH_PROGRAM := $(if $(WHOLE),$(B)/tests/crash/crash)
SIM_PROGRAM := $(if $(WHOLE),$(B)/tests/sim/sim)

.PHONY: build bench test rows agreement every-call-fails crash flat simulate demo bench-streams bench-parts bench-instructions examples install uninstall clean deps help format format-check FORCE
.SECONDARY:

build: $(NODE) $(LIB_A) $(LIB_SO) $(if $(WHOLE),$(BENCH)) ## the node and its command, the client library, millrace-bench (default)

# -- what the system must have ---------------------------------------------------------------------

# Each Debian package, and a header or tool that shows it is there where there is no dpkg.
NEED := gcc:gcc libc6-dev:stdio.h binutils:objcopy liburing-dev:liburing.h libprotobuf-c-dev:protobuf-c/protobuf-c.h \
	protobuf-c-compiler:protoc-c libprotobuf-dev:google/protobuf/timestamp.proto libxxhash-dev:xxhash.h \
	libjemalloc-dev:jemalloc/jemalloc.h libseccomp-dev:seccomp.h
NEED_TEST := g++:g++ libcmocka-dev:cmocka.h protobuf-compiler:protoc python3:python3 \
	python3-protobuf:/usr/lib/python3/dist-packages/google/protobuf/message.py strace:strace pkg-config:pkg-config
NEED_FORMAT := clang-format:clang-format
ifneq ($(filter test examples rows agreement every-call-fails flat crash simulate,$(MAKECMDGOALS)),)
NEED += $(NEED_TEST)
endif
ifneq ($(filter bench-instructions,$(MAKECMDGOALS)),)
NEED += valgrind:valgrind libcmocka-dev:cmocka.h
endif
NEED_BENCH := redis-server:redis-server redis-tools:redis-benchmark etcd-server:etcd nghttp2-client:h2load \
	gnuplot-nox:gnuplot python3:python3
ifneq ($(filter bench,$(MAKECMDGOALS)),)
NEED += $(NEED_BENCH)
endif
ifneq ($(findstring format,$(MAKECMDGOALS)),)
NEED := $(NEED_FORMAT)
endif
ifneq ($(findstring clang,$(CC)),)
NEED += clang:clang $(if $(SANITIZE),libclang-rt-14-dev:clang)
endif
NEED_PACKAGES = $(foreach need,$(NEED),$(firstword $(subst :, ,$(need))))

# Debian starts a server that it installs; meanwhile policy-rc.d, its own means, says that it must not.
deps: ## what is needed and missing: installed as root, else the line to type is printed
	@missing=; \
	if command -v dpkg-query >/dev/null 2>&1; then \
	    there=" $$(dpkg-query -W -f='$${Package}=$${db:Status-Status} ' $(NEED_PACKAGES) 2>/dev/null)"; \
	    for need in $(NEED); do \
	        case "$$there" in *" $${need%%:*}=installed "*) ;; *) missing="$$missing $${need%%:*}";; esac; \
	    done; \
	else \
	    for need in $(NEED); do \
	        probe=$${need#*:}; \
	        [ -e "$$probe" ] || [ -e "/usr/include/$$probe" ] || [ -e "/usr/local/include/$$probe" ] \
	            || command -v "$$probe" >/dev/null 2>&1 || missing="$$missing $${need%%:*}"; \
	    done; \
	fi; \
	[ -n "$$missing" ] || exit 0; \
	install="apt-get install -y --no-install-recommends$$missing"; \
	if ! command -v apt-get >/dev/null 2>&1; then \
	    echo "Millrace needs what Debian 12 packages as:$$missing. Install these, then run make again." >&2; exit 1; \
	elif [ "$$(id -u)" != 0 ]; then \
	    line="apt-get update && $$install"; \
	    if command -v sudo >/dev/null 2>&1; then line="sudo sh -c '$$line'"; else line="su -c '$$line'"; fi; \
	    printf 'Millrace needs packages that are not installed. Type this line, then run make again:\n\n    %s\n\n' \
	        "$$line" >&2; exit 1; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	policy=/usr/sbin/policy-rc.d; \
	case "$$missing" in *-server*) \
	    if [ ! -e $$policy ]; then \
	        trap 'rm -f /usr/sbin/policy-rc.d' EXIT; trap 'exit 1' INT TERM HUP; \
	        printf '#!/bin/sh\nexit 101\n' >$$policy && chmod 755 $$policy; \
	    fi;; \
	esac; \
	echo "  DEPS $$missing"; \
	if ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 && $$install >/dev/null 2>&1; then exit 0; fi; \
	apt-get update -q >/dev/null && $$install -q >/dev/null || { echo "make: '$$install' failed" >&2; exit 1; }

# -- flags and lists that objects and archives are made of -----------------------------------------

# $(call stamp,FILE,TEXT): FILE changes when TEXT does, and what depends on it is made again.
define stamp
$(1): export STAMP := $(2)
$(1): FORCE | deps
	@mkdir -p $$(@D); printf '%s\n' "$$$$STAMP" | cmp -s - $$@ || printf '%s\n' "$$$$STAMP" >$$@
endef
FORCE:

$(eval $(call stamp,$(B)/obj/release/flags,$(CC) $(C_RELEASE)))
$(eval $(call stamp,$(B)/obj/test/flags,$(CC) $(C_TEST)))
$(eval $(call stamp,$(B)/obj/gen/flags,$(CC) $(C_GEN)))
$(eval $(call stamp,$(B)/obj/link,$(CC) $(CXX) $(LINK) $(C_USER) $(LIBRARIES)))
$(eval $(call stamp,$(B)/obj/release/list,$(SOURCES)))
$(eval $(call stamp,$(B)/obj/test/list,$(SOURCES)))
$(eval $(call stamp,$(B)/obj/test/support-list,$(SUPPORT)))
$(eval $(call stamp,$(B)/obj/test/crash-list,$(CRASH)))
$(eval $(call stamp,$(B)/obj/test/sim-list,$(SIM)))
$(eval $(call stamp,$(B)/obj/gen/list,$(GEN_NAMES)))

# -- generated code --------------------------------------------------------------------------------

# protobuf-c ends a string at its first NUL; as `bytes`, which has the same encoding, a field keeps all of it. Only a
# field's type is replaced: a word `string` before `name = number`, and the value type of a map.
AS_BYTES := sed -E \
	-e 's/(^|[[:space:]{;])string([[:space:]]+[A-Za-z_][A-Za-z0-9_]*[[:space:]]*=[[:space:]]*[0-9])/\1bytes\2/g' \
	-e 's/(map[[:space:]]*<[^,>]*,[[:space:]]*)string([[:space:]]*>)/\1bytes\2/g'

$(SYSTEM_PROTOS:%=$(B)/gen-proto/%): $(B)/gen-proto/%: | deps
	@mkdir -p $(@D)
	$(Q)$(AS_BYTES) $(PROTOBUF_INCLUDE)/$* >$@

$(PROTOS:%=$(B)/gen-proto/%): $(B)/gen-proto/%: proto/% | deps
	@mkdir -p $(@D)
	$(Q)$(AS_BYTES) $< >$@

# A map with string keys would come through as strings, since protobuf has no map keyed by bytes; it is refused here.
$(B)/gen/%.pb-c.c $(B)/gen/%.pb-c.h: $(B)/gen-proto/%.proto $(PROTO_COPIES)
	$(say) GEN $*.proto
	@mkdir -p $(B)/gen
	$(Q)protoc-c --proto_path=$(B)/gen-proto --c_out=$(B)/gen $<
	@if grep -q PROTOBUF_C_TYPE_STRING $(B)/gen/$*.pb-c.c; then \
	    echo "$*.proto: a string field was not turned into bytes" >&2; rm -f $(B)/gen/$*.pb-c.[ch]; exit 1; fi

$(B)/gen-py/stamp: $(PROTOS:%=proto/%) | deps
	$(say) GEN 'Python messages'
	@mkdir -p $(@D)
	$(Q)$(if $(PROTOS),protoc --proto_path=proto --proto_path=$(PROTOBUF_INCLUDE) --python_out=$(@D) $(PROTOS))
	@touch $@

$(GEN_O): $(B)/obj/gen/%.o: $(B)/gen/%.c $(B)/obj/gen/flags | deps $(GEN_H)
	@mkdir -p $(@D)
	$(Q)$(CC) $(C_GEN) -MMD -MP -c -o $@ $<

$(GEN_A): $(GEN_O) $(B)/obj/gen/list
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

# -- objects ---------------------------------------------------------------------------------------

$(B)/obj/release/%.o: %.c $(B)/obj/release/flags | deps $(GEN_H)
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(C_RELEASE) -MMD -MP -c -o $@ $<

$(B)/obj/test/%.o: %.c $(B)/obj/test/flags | deps $(GEN_H)
	$(say) CC '$< (test)'
	@mkdir -p $(@D)
	$(Q)$(CC) $(C_TEST) -MMD -MP -c -o $@ $<

-include $(wildcard $(patsubst %.o,%.d,$(RELEASE_O) $(TEST_O) $(SUPPORT_O) $(CRASH_O) $(SIM_O) $(GEN_O) \
	$(B)/obj/test/tests/crash/crash.o $(BENCH_O) $(PARTS_O) $(INSTRUCTIONS_O) $(REDIS_LOADS_O) \
	$(B)/obj/release/$(MAIN:.c=.o) $(B)/obj/test/$(MAIN:.c=.o) $(patsubst %.c,$(B)/obj/test/%.o,$(filter %.c,$(TESTS)))) \
	$(addsuffix .d,$(EXAMPLE_PROGRAMS) $(DEMO)))

# -- the node and the library ----------------------------------------------------------------------

$(B)/millrace: $(B)/obj/release/$(MAIN:.c=.o) $(RELEASE_O) $(GEN_A) $(B)/obj/release/list $(B)/obj/link
	$(say) LINK $@
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(GEN_A) $(LINK) $(LIBRARIES)

$(B)/test/millrace: $(B)/obj/test/$(MAIN:.c=.o) $(TEST_O) $(GEN_A) $(B)/obj/test/list $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(GEN_A) $(LINK) $(LIBRARIES)

# One object of all the library's, in which every symbol but mr_* has become local, so that a program which links the
# archive can use any other name itself.
$(LIB_A): $(LIB_O) $(GEN_A) $(B)/obj/release/list
	$(say) AR $@
	$(Q)$(LD) -r -o $(B)/obj/libmillrace.o $(LIB_O) $(GEN_A)
	$(Q)$(OBJCOPY) --wildcard --keep-global-symbol='mr_*' $(B)/obj/libmillrace.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/obj/libmillrace.o

$(LIB_SO).$(VERSION): $(LIB_O) $(GEN_A) $(B)/obj/release/list $(B)/obj/link ipc/client/libmillrace.map
	$(say) LINK $@
	$(Q)$(CC) -shared -o $@ -Wl,-soname,libmillrace.so.$(SOVERSION) -Wl,--version-script=ipc/client/libmillrace.map \
	    $(NO_UNDEFINED) $(LIB_O) $(GEN_A) $(LINK) $(CLIENT_LIBRARIES)

$(LIB_SO): $(LIB_SO).$(VERSION)
	$(Q)ln -sf $(<F) $(LIB_SO).$(SOVERSION) && ln -sf $(LIB_SO:$(B)/%=%).$(SOVERSION) $@

# -- tests, examples, demo -------------------------------------------------------------------------

$(B)/obj/test/libnode.a: $(TEST_O) $(B)/obj/test/list
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(B)/obj/test/libsupport.a: $(SUPPORT_O) $(B)/obj/test/support-list
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

# A file test_x.ldflags beside test_x.c is added to its link line (-Wl,--wrap=memcpy).
TEST_ARCHIVES := $(B)/obj/test/libsupport.a $(B)/obj/test/libnode.a $(GEN_A)
$(B)/tests/%: $(B)/obj/test/tests/%.o $(TEST_ARCHIVES) $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $< -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LINK) \
	    $$(cat tests/$*.ldflags 2>/dev/null) -lcmocka $(LIBRARIES)
# What is under tests/crash is linked with the rest of that folder.
$(B)/obj/test/libcrash.a: $(CRASH_O) $(B)/obj/test/crash-list
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)
$(B)/tests/crash/%: $(B)/obj/test/tests/crash/%.o $(B)/obj/test/libcrash.a $(TEST_ARCHIVES) $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $< -Wl,--start-group $(B)/obj/test/libcrash.a $(TEST_ARCHIVES) -Wl,--end-group $(LINK) \
	    -lcmocka $(LIBRARIES)
# The simulator takes a worker's memory away when that dies: the node's objects get it from tests/sim/life.c.
SIM_MALLOC := $(foreach f,malloc calloc realloc aligned_alloc free,--redefine-sym $(f)=sim_$(f))
SIM_WRAP := -Wl,--wrap=fsm_apply,--wrap=sys_mmap,--wrap=sys_munmap,--wrap=sys_close,--wrap=channel_unmap
$(B)/obj/test/libnode-sim.a: $(B)/obj/test/libnode.a
	$(Q)$(OBJCOPY) $(SIM_MALLOC) $< $@
$(B)/tests/sim/sim: $(SIM_O) $(B)/obj/test/libnode-sim.a $(B)/obj/test/libsupport.a $(GEN_A) $(B)/obj/test/sim-list \
	$(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(SIM_WRAP) $(LINK) \
	    -lcmocka $(LIBRARIES)
$(foreach f,$(wildcard $(SELECTED:.c=.ldflags)),$(eval $(B)/$(f:.ldflags=): $(f)))

$(B)/examples/%: tests/examples/%.c $(LIB_A) $(B)/obj/link | deps
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 $(C_USER) -MMD -MP -MF $@.d -MT $@ -o $@ $< $(LIB_A) $(LINK) $(CLIENT_LIBRARIES)

$(B)/examples/%: tests/examples/%.cc $(LIB_A) $(B)/obj/link | deps
	$(say) CXX $<
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++11 $(C_USER) -MMD -MP -MF $@.d -MT $@ -o $@ $< $(LIB_A) $(LINK) $(CLIENT_LIBRARIES)

$(B)/millrace-demo: bench/demo.c $(LIB_A) $(B)/obj/link | deps
	$(say) CC $<
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(C_USER) -MMD -MP -MF $@.d -MT $@ -o $@ $< $(LIB_A) $(LINK) $(CLIENT_LIBRARIES)

$(B)/millrace-streams: bench/streams.c $(LIB_A) $(B)/obj/link | deps
	$(say) CC $<
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE $(C_USER) -MMD -MP -MF $@.d -MT $@ -o $@ $< $(LIB_A) $(LINK) $(CLIENT_LIBRARIES)

# The load generator: a client like any other, but for the node's status, which is a message of control.proto.
$(BENCH): $(BENCH_O) $(LIB_A) $(GEN_A) $(B)/obj/link
	$(say) LINK $@
	$(Q)$(CC) -o $@ $(BENCH_O) $(LIB_A) $(GEN_A) $(LINK) $(CLIENT_LIBRARIES) -lm

$(B)/redis-%: $(B)/obj/release/bench/compare/redis_%.o $(B)/obj/release/bench/compare/redis.o \
	$(B)/obj/release/bench/load/histogram.o $(B)/obj/link
	$(say) LINK $@
	$(Q)$(CC) -o $@ $(filter %.o,$^) $(LINK) -lm

bench: build $(B)/millrace-parts $(REDIS_LOADS) ## beside Redis, etcd, the bare machine; QUICK=1: two minutes; ARGS="--only ring"
	@/usr/bin/python3 bench/compare/compare.py --programs '$(B)' $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

# Parts of the node alone, and its instructions: linked with the node's objects as users get them.
$(B)/millrace-parts: $(PARTS_O) $(RELEASE_O) $(GEN_A) $(B)/obj/link
	$(say) LINK $@
	$(Q)$(CC) -o $@ $(PARTS_O) $(RELEASE_O) $(GEN_A) $(LINK) $(LIBRARIES)

$(B)/millrace-instructions: $(INSTRUCTIONS_O) $(RELEASE_O) $(GEN_A) $(B)/obj/link
	$(say) LINK $@
	$(Q)$(CC) -o $@ $(INSTRUCTIONS_O) $(RELEASE_O) $(GEN_A) $(LINK) $(LIBRARIES) -lcmocka

bench-parts: $(B)/millrace-parts ## parts of a node alone, each beside its bare limit; PARTS="ring log" ARGS="--seconds 2"
	@$(B)/millrace-parts $(ARGS) $(PARTS)

bench-instructions: $(B)/millrace-instructions ## instructions per command, against those last accepted; UPDATE=1
	@CC='$(CC)' UPDATE='$(UPDATE)' MILLRACE_INSTRUCTIONS='$(ABSOLUTE_B)/millrace-instructions' bash bench/instructions.sh

examples: $(EXAMPLE_PROGRAMS) ## the example clients of tests/examples, in $(OUT)/examples

TEST_NEEDS := $(TEST_PROGRAMS) $(B)/gen-py/stamp
ifneq ($(WHOLE),)
TEST_NEEDS += $(TEST_NODE) $(NODE) $(LIB_A) $(LIB_SO) $(EXAMPLE_PROGRAMS) $(DEMO) $(CRASH_PROGRAM) $(SIM_PROGRAM) $(BENCH) \
	$(REDIS_LOADS) $(B)/millrace-parts
endif
test: $(TEST_NEEDS) ## all tests; T=log: those whose path contains `log`; SANITIZE=address,undefined or thread
	@MILLRACE_TOP='$(CURDIR)' MILLRACE_OUT='$(ABSOLUTE_B)' MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' \
	    MILLRACE_SANITIZE='$(SANITIZE)' MILLRACE_CC='$(CC)' MILLRACE_CXX='$(CXX)' \
	    /usr/bin/python3 tests/run --timeout $(TEST_TIMEOUT) $(SELECTED)

ROWS_NEED := $(TEST_NODE) $(B)/gen-py/stamp \
	$(addprefix $(B)/tests/unit/,fsm/test_dump fsm/test_snapshot_rows client/test_answer proto/test_agreement)
rows: $(ROWS_NEED) ## each row of fsm.proto, when dropped, fails its own test; T=KeepAlive: only such
	@MILLRACE_TOP='$(CURDIR)' MILLRACE_OUT='$(ABSOLUTE_B)' MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' \
	    /usr/bin/python3 tests/rows/try '$(T)'

EVERY_CALL ?= all
every-call-fails: $(TEST_NODE) $(B)/gen-py/stamp ## each system call of a node fails, at each place; EVERY_CALL=fsync
	@MILLRACE_TOP='$(CURDIR)' MILLRACE_OUT='$(ABSOLUTE_B)' MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' \
	    PYTHONPATH='$(ABSOLUTE_B)/gen-py:$(CURDIR)/tests/support' PYTHONDONTWRITEBYTECODE=1 EVERY_CALL='$(EVERY_CALL)' \
	    /usr/bin/python3 tests/integration/test_every_call_fails.py EveryCall.test_each_fails

CASES ?= 2000000
SEED ?= 1
agreement: $(B)/tests/unit/proto/test_agreement $(B)/gen-py/stamp ## reader and protobuf; CASES=n SEED=n
	@MILLRACE_OUT='$(ABSOLUTE_B)' MILLRACE_AGREEMENT_CASES=$(CASES) MILLRACE_AGREEMENT_SEED=$(SEED) \
	    /usr/bin/python3 tests/unit/proto/test_agreement.py Agreement.test_made_messages

flat: ROUNDS = 100000
flat: $(TEST_NODE) $(B)/tests/integration/test_flat ## a node's descriptors and memory while clients come and go; ROUNDS=n
	@MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' FLAT_ROUNDS='$(ROUNDS)' $(B)/tests/integration/test_flat

ROUNDS ?= 5
FROM ?= 1
JOBS ?= 1
crash: $(TEST_NODE) $(CRASH_PROGRAM) ## a real node killed at random, all answers checked; ROUNDS=n SEED=n FROM=n JOBS=n
	@MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' $(CRASH_PROGRAM) --rounds $(ROUNDS) --seed $(SEED) --from $(FROM) \
	    --jobs $(JOBS) $(CRASH_OPTIONS)

SEEDS ?= 10000
simulate: $(SIM_PROGRAM) ## the worker in a simulated world, from seeds; SEEDS=n FROM=n JOBS=n VERBOSE=1
	@$(SIM_PROGRAM) --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS) $(if $(VERBOSE),--verbose) $(if $(PLANT),--plant $(PLANT))

demo: build $(DEMO) ## count a million words over a kill and a restart; FILE=text WORDS=number
	@MILLRACE_TOP='$(CURDIR)' MILLRACE_OUT='$(ABSOLUTE_B)' MILLRACE_BIN='$(ABSOLUTE_B)/millrace' \
	    MILLRACE_DEMO='$(ABSOLUTE_B)/millrace-demo' bash bench/demo.sh

bench-streams: build $(B)/millrace-streams ## what a sleeping listener and a large walk cost others; EVENTS= ENTRIES=
	@MILLRACE_BIN='$(ABSOLUTE_B)/millrace' MILLRACE_STREAMS='$(ABSOLUTE_B)/millrace-streams' bash bench/streams.sh

include tests/checks.mk

# -- the rest --------------------------------------------------------------------------------------

PC_LINES := 'prefix=$(PREFIX)' 'libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))' 'includedir=$${prefix}/include' '' \
	'Name: millrace' 'Description: Client of Millrace, a durable state-machine node for one machine' \
	'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -lmillrace' 'Libs.private: $(CLIENT_LIBRARIES)'
TO_PREFIX := $(DESTDIR)$(PREFIX)
TO_LIBDIR := $(DESTDIR)$(LIBDIR)

install: build ## to $(DESTDIR)$(PREFIX), libraries to $(DESTDIR)$(LIBDIR)
	$(Q)install -d '$(TO_PREFIX)/bin' '$(TO_LIBDIR)/pkgconfig' '$(TO_PREFIX)/include/millrace'
	$(Q)$(if $(NODE),install -m 755 $(NODE) '$(TO_PREFIX)/bin/millrace')
	$(Q)install -m 644 $(LIB_A) '$(TO_LIBDIR)/'
	$(Q)install -m 755 $(LIB_SO).$(VERSION) '$(TO_LIBDIR)/'
	$(Q)ln -sf libmillrace.so.$(VERSION) '$(TO_LIBDIR)/libmillrace.so.$(SOVERSION)'
	$(Q)ln -sf libmillrace.so.$(SOVERSION) '$(TO_LIBDIR)/libmillrace.so'
	$(Q)install -m 644 include/millrace/*.h '$(TO_PREFIX)/include/millrace/'
	$(Q)printf '%s\n' $(PC_LINES) | install -m 644 /dev/stdin '$(TO_LIBDIR)/pkgconfig/millrace.pc'
	$(Q)[ -n '$(DESTDIR)' ] || ldconfig 2>/dev/null || true

uninstall: ## what install put there
	$(Q)rm -f '$(TO_PREFIX)/bin/millrace' '$(TO_LIBDIR)'/libmillrace.a '$(TO_LIBDIR)'/libmillrace.so* \
	    '$(TO_LIBDIR)/pkgconfig/millrace.pc'
	$(Q)rm -rf '$(TO_PREFIX)/include/millrace'

clean: ## remove $(OUT)
	$(Q)rm -rf -- '$(OUT)'

FORMATTED = $(shell find include proto ipc engine bench tests -name '*.[ch]' -o -name '*.cc')
format: | deps ## lay out all sources by .clang-format
	$(Q)clang-format -i $(FORMATTED)

format-check: | deps ## say where the layout differs
	$(Q)clang-format --dry-run --Werror $(FORMATTED)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /    make \1\t/p' Makefile tests/checks.mk | expand -t 30
	@printf '\n    Variables: OUT=%s PREFIX=%s LIBDIR=%s DESTDIR= CC= CFLAGS= SANITIZE= WERROR=1 V=1\n' '$(OUT)' '$(PREFIX)' \
	    '$(LIBDIR)'

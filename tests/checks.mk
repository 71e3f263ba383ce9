# SPDX-License-Identifier: Apache-2.0
# What is looked for rather than tested: fuzzing, data races, memory errors, what clang-tidy and cppcheck see. Part of
# the Makefile, whose variables it uses.

# -- fuzzing ---------------------------------------------------------------------------------------

# Built by clang with libFuzzer, in a folder of its own; what is found from run to run is carried on in
# $(OUT)/fuzz/corpus, beside the seeds of tests/fuzz/seeds. An input that fails is kept in $(OUT)/fuzz/found/TARGET and
# reproduced by `make fuzz TARGET=... INPUT=file`.
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
FUZZ_CC ?= clang
FUZZ_MAKE := $(MAKE) --no-print-directory OUT='$(OUT)' CC='$(FUZZ_CC)' SANITIZE=fuzzer-no-link,address,undefined WERROR=
FUZZ_O := $(FUZZ_TARGETS:%=$(B)/obj/test/tests/fuzz/fuzz_%.o) $(B)/obj/test/tests/fuzz/fuzz.o
FUZZ_REPLAYS := $(FUZZ_TARGETS:%=$(B)/tests/fuzz/replay_%)
FUZZ_CORPUS = $(OUT)/fuzz/corpus/$*
FUZZ_FOUND = $(OUT)/fuzz/found/$*
# An input takes less than a second; on a machine that does other things a process may stand still for long.
FUZZ_OPTIONS = -timeout=120 -rss_limit_mb=2560 -max_len=1024 -len_control=0 -print_final_stats=1 -verbosity=1 \
	$(if $(FUZZ_SEED),-seed=$(FUZZ_SEED))
FUZZ_NEED := $(FUZZ_CC):$(FUZZ_CC) libclang-rt-14-dev:clang
# Of what reaches something new so many are kept as seeds, of all sizes up to this.
FUZZ_SEEDS := 40
FUZZ_SEED_BYTES := 300
SECONDS ?= 20
# Empty: another search each time.
FUZZ_SEED ?=
TARGET ?=
INPUT ?=

ifneq ($(filter fuzz%,$(MAKECMDGOALS)),)
NEED += $(FUZZ_NEED) $(NEED_TEST)
endif
-include $(wildcard $(FUZZ_O:.o=.d) $(B)/obj/test/tests/fuzz/replay.d)

.PHONY: fuzz fuzz-all fuzz-planted fuzz-minimize fuzz-keep fuzz-target

fuzz-target:
	@case ' $(FUZZ_TARGETS) ' in *' $(TARGET) '*) ;; *) echo 'TARGET is one of: $(FUZZ_TARGETS)' >&2; exit 1;; esac

fuzz: fuzz-target ## search for SECONDS=20 with TARGET=reader ...; FUZZ_SEED=n; INPUT=file: only that, again
	+@$(FUZZ_MAKE) $(if $(INPUT),fuzz-input-$(TARGET) INPUT='$(INPUT)',fuzz-run-$(TARGET) SECONDS=$(SECONDS))

fuzz-all: ## all of them, SECONDS=20 each
	+@$(FUZZ_MAKE) $(FUZZ_TARGETS:%=fuzz-run-%) SECONDS=$(SECONDS)

fuzz-planted: ## does each target find the fault that is planted for it?
	+@$(FUZZ_MAKE) $(FUZZ_TARGETS:%=fuzz-planted-%) SECONDS=$(SECONDS)

fuzz-minimize: fuzz-target ## the smallest form of a finding: TARGET= INPUT=file
	+@$(FUZZ_MAKE) fuzz-minimize-$(TARGET) INPUT='$(INPUT)' SECONDS=$(SECONDS)

fuzz-keep: fuzz-target ## what of TARGET's corpus reaches something new becomes its seeds, if small
	+@$(FUZZ_MAKE) fuzz-keep-$(TARGET)

test: $(if $(filter %/test_fuzz_seeds.py,$(SELECTED)),$(FUZZ_REPLAYS))

# What follows runs in the make that FUZZ_MAKE starts.
$(B)/tests/fuzz/fuzz_%: $(B)/obj/test/tests/fuzz/fuzz_%.o $(B)/obj/test/tests/fuzz/fuzz.o $(TEST_ARCHIVES) $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LINK) -fsanitize=fuzzer \
	    $$(cat tests/fuzz/fuzz_$*.ldflags 2>/dev/null) -lcmocka $(LIBRARIES)

# With any compiler: what was found before, run again. `make test` does that.
$(B)/tests/fuzz/replay_%: $(B)/obj/test/tests/fuzz/fuzz_%.o $(B)/obj/test/tests/fuzz/fuzz.o \
	$(B)/obj/test/tests/fuzz/replay.o $(TEST_ARCHIVES) $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LINK) \
	    $$(cat tests/fuzz/fuzz_$*.ldflags 2>/dev/null) -lcmocka $(LIBRARIES)

fuzz-run-%: $(B)/tests/fuzz/fuzz_%
	@mkdir -p $(FUZZ_CORPUS) $(FUZZ_FOUND) tests/fuzz/seeds/$*
	@log=$(OUT)/fuzz/$*.log; \
	if $< $(FUZZ_OPTIONS) -max_total_time=$(SECONDS) -artifact_prefix=$(FUZZ_FOUND)/ $(FUZZ_CORPUS) tests/fuzz/seeds/$* \
	    >$$log 2>&1; then \
	    printf '  FUZZ  %-10s %10s runs, %s inputs kept\n' $* \
	        "$$(sed -n 's/^stat::number_of_executed_units: *//p' $$log)" "$$(ls $(FUZZ_CORPUS) | wc -l)"; \
	else \
	    tail -n 60 $$log; echo "fuzz $*: FOUND; again: make fuzz TARGET=$* INPUT=FILE, a file of $(FUZZ_FOUND)" >&2; exit 1; \
	fi

# What was found must be the planted fault: the input that failed passes without it.
fuzz-planted-%: $(B)/tests/fuzz/fuzz_%
	@log=$(OUT)/fuzz/$*.planted.log; corpus=$(OUT)/fuzz/planted/$*; found=$(OUT)/fuzz/planted/$*.found; \
	rm -rf $$corpus $$found; mkdir -p $$corpus $$found $(FUZZ_CORPUS) tests/fuzz/seeds/$*; \
	if FUZZ_PLANTED=1 $< $(FUZZ_OPTIONS) -max_total_time=$(SECONDS) -artifact_prefix=$$found/ $$corpus $(FUZZ_CORPUS) \
	    tests/fuzz/seeds/$* >$$log 2>&1; then \
	    echo "fuzz $*: the planted fault was NOT found in $(SECONDS) s" >&2; exit 1; \
	fi; \
	input=$$(find $$found -type f | head -n 1); \
	if [ -z "$$input" ]; then \
	    tail -n 60 $$log; echo "fuzz $*: it failed with the planted fault, but on no input" >&2; exit 1; \
	fi; \
	if ! $< $(FUZZ_OPTIONS) $$input >$$log.without 2>&1; then \
	    tail -n 60 $$log.without; \
	    echo "fuzz $*: FOUND, and not what was planted; again: make fuzz TARGET=$* INPUT=$$input" >&2; exit 1; \
	fi; \
	printf '  FUZZ  %-10s planted fault found: %s\n' $* "$$(grep -m1 -E 'does not hold|assertion|ERROR|SUMMARY' $$log)"

fuzz-input-%: $(B)/tests/fuzz/fuzz_%
	@$< $(FUZZ_OPTIONS) $(INPUT)

fuzz-minimize-%: $(B)/tests/fuzz/fuzz_%
	@mkdir -p $(FUZZ_FOUND)
	@$< $(FUZZ_OPTIONS) -minimize_crash=1 -max_total_time=$(SECONDS) -exact_artifact_path=$(FUZZ_FOUND)/minimized $(INPUT)

fuzz-keep-%: $(B)/tests/fuzz/fuzz_%
	@rm -rf $(OUT)/fuzz/merged/$*; mkdir -p $(OUT)/fuzz/merged/$* $(FUZZ_CORPUS) tests/fuzz/seeds/$*
	@$< $(FUZZ_OPTIONS) -merge=1 $(OUT)/fuzz/merged/$* tests/fuzz/seeds/$* $(FUZZ_CORPUS) 2>&1 | tail -n 1
	@cd $(OUT)/fuzz/merged/$*; find . -type f -size -$(FUZZ_SEED_BYTES)c -printf '%s %f\n' | sort -n | \
	    awk '{ name[NR] = $$2 } END { for (n = 1; n <= $(FUZZ_SEEDS); n++) print name[int(n * NR / $(FUZZ_SEEDS))] }' | \
	    uniq | xargs -I{} cp {} '$(CURDIR)'/tests/fuzz/seeds/$*/

# -- hostile clients -------------------------------------------------------------------------------

# ROUNDS, SEED and FROM as for `make crash`; BOUT: rounds on one node.
BOUT ?= 50000
ATTACK_O := $(patsubst %.c,$(B)/obj/test/%.o,$(sort $(wildcard tests/attack/*.c)))
ATTACK_PROGRAM := $(if $(WHOLE),$(B)/tests/attack/attack)
ifneq ($(filter attack,$(MAKECMDGOALS)),)
NEED += $(NEED_TEST)
endif
-include $(wildcard $(ATTACK_O:.o=.d) $(B)/obj/test/bench/load/histogram.d)

.PHONY: attack

$(B)/tests/attack/attack: $(ATTACK_O) $(B)/obj/test/bench/load/histogram.o $(TEST_ARCHIVES) $(B)/obj/link
	$(say) LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $(filter %.o,$^) -Wl,--start-group $(TEST_ARCHIVES) -Wl,--end-group $(LINK) -lcmocka $(LIBRARIES) -lm

attack: $(TEST_NODE) $(ATTACK_PROGRAM) ## hostile clients beside an honest one, as root; ROUNDS=n SEED=n FROM=n
	@MILLRACE_BIN='$(ABSOLUTE_B)/test/millrace' $(ATTACK_PROGRAM) --rounds $(ROUNDS) --seed $(SEED) --from $(FROM) \
	    --bout $(BOUT) $(ATTACK_OPTIONS)

test: $(if $(filter %/test_attack.py,$(SELECTED)),$(ATTACK_PROGRAM))

# -- data races ------------------------------------------------------------------------------------

.PHONY: check-tsan check-memory lint check-all

# The ring's two ends on one mapping (across two mappings of one memfd the sanitizer sees nothing) and the library with
# its helper thread. tests/unit/ipc/test_ring_race.c plants a race, which must be reported.
TSAN_TESTS := $(sort $(wildcard tests/unit/ipc/test_ring*.c tests/unit/client/test_*.c))
check-tsan: ## the rings and the library's thread under ThreadSanitizer
	+@$(MAKE) --no-print-directory OUT='$(OUT)' SANITIZE=thread DIRS='proto ipc ipc/client engine/fsm' \
	    TESTS='$(TSAN_TESTS)' T= WERROR= test

# -- memory errors ---------------------------------------------------------------------------------

ifneq ($(filter check-memory check-all,$(MAKECMDGOALS)),)
NEED += $(NEED_TEST) valgrind:valgrind
endif
MEMCHECKED := $(patsubst %.c,$(B)/%,$(sort $(wildcard tests/unit/client/test_*.c)) \
	$(addprefix tests/unit/ipc/test_,channel.c handshake.c ring.c) $(addprefix tests/unit/proto/test_,reader.c writer.c))

$(B)/tests/checks/planted_memory: tests/checks/planted_memory.c | deps
	@mkdir -p $(@D)
	$(Q)$(CC) -O0 -g -o $@ $<

check-memory: $(B)/millrace $(EXAMPLE_PROGRAMS) $(MEMCHECKED) $(B)/tests/checks/planted_memory ## the client library under valgrind
	@/usr/bin/python3 tests/checks/memcheck '$(ABSOLUTE_B)' '$(ABSOLUTE_B)/millrace' $(MEMCHECKED)

# -- analysis --------------------------------------------------------------------------------------

ifneq ($(filter lint check-all,$(MAKECMDGOALS)),)
NEED += $(NEED_TEST) clang-tidy:clang-tidy cppcheck:cppcheck
endif
LINTED := $(sort $(wildcard $(addsuffix /*.c,$(ALL_DIRS)) bench/*.c bench/load/*.c bench/parts/*.c tests/fuzz/*.c))

lint: $(GEN_H) ## clang-tidy and cppcheck
	@/usr/bin/python3 tests/checks/lint '$(DEFINES) -DMR_TESTING $(INCLUDES)' $(LINTED)

# -- all of it -------------------------------------------------------------------------------------

check-all: ## everything that looks for mistakes, with some of what can be run for longer: takes over an hour
	+@$(MAKE) --no-print-directory test WERROR=1
	+@$(MAKE) --no-print-directory CC=clang build WERROR=1
	+@$(MAKE) --no-print-directory format-check
	+@$(MAKE) --no-print-directory bench-instructions
	+@$(MAKE) --no-print-directory lint
	+@$(MAKE) --no-print-directory SANITIZE=address,undefined test
	+@$(MAKE) --no-print-directory check-tsan
	+@$(MAKE) --no-print-directory check-memory
	+@$(MAKE) --no-print-directory fuzz-planted
	+@$(MAKE) --no-print-directory fuzz-all
	+@$(MAKE) --no-print-directory simulate SEEDS=100000
	+@$(MAKE) --no-print-directory crash ROUNDS=100
	+@$(MAKE) --no-print-directory flat ROUNDS=100000
	+@$(MAKE) --no-print-directory attack ROUNDS=100000
	+@$(MAKE) --no-print-directory every-call-fails

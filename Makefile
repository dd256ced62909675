# The project's few commands; each is a script that says more.

.PHONY: demo test test-gotrue mutations faults soak bench setup

# Everything started, one login watched from sign-in to sign-out. Ctrl-C ends it; DEMO_ONCE=1 ends by itself.
demo:
	@bin/demo

# Every check, as CI runs them. STEPS="fmt clippy" runs only those.
test:
	@.ci/run $(STEPS)

# The live suites against a real GoTrue: GOTRUE_BIN and DATABASE_URL say which (tests/it/support/gotrue/real.rs).
test-gotrue:
	@bin/test-gotrue

# Breaks the mirror in many ways, one at a time, and shows that a test notices each. Takes some minutes.
mutations:
	@tests/mutations/run

# Every shape of Redis fails in every way, and prints what came of it (docs/faults.md). UPDATE_DOCS=1 writes it there.
faults:
	@FAULTS_SECONDS=$${FAULTS_SECONDS:-5} cargo test --locked --test it storm::in_every_cell -- --nocapture

# An hour of load with a fault every few seconds; SOAK_SECONDS and SOAK_SEED make it another hour.
soak:
	@SOAK_SECONDS=$${SOAK_SECONDS:-3600} cargo test --locked --test it storm::soak -- --nocapture

# What a request costs, beside nginx and HAProxy.
bench:
	@bench/run

setup:
	@bin/setup

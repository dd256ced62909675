# The project's few commands; each is a script that says more.

.PHONY: demo test test-gotrue mutations bench setup

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

# What a request costs, beside nginx and HAProxy.
bench:
	@bench/run

setup:
	@bin/setup

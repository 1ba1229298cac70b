# What people and CI run: `make test` is what CI runs, `make test-full` the long rest too.

# The tests build the binary once, without optimisation and with assertions, and the suites in other languages use that
# same binary: a second, optimised build would double the time and check less. `make autobahn` alone wants speed.
BINARY := $(or $(CARGO_TARGET_DIR),target)/debug/tieline
# Every engine: what is not in the default build is tested too.
FEATURES := --features tieline/full
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release/tieline

.PHONY: run demo-ring test test-full bench lint fmt clippy unit binary crowds doc tidy autobahn autobahn-part sdk official browser chaos-part chaos deny

# One thing after the other, in the order written: the quick answers first, and no two builds at a time.
.NOTPARALLEL:

run:
	cargo run --release -p tieline -- dev

# Who moves when nodes come, are emptied and are killed: a thousand clients and counted messages, in about a minute.
demo-ring:
	cargo xtask demo-ring

test: lint unit doc tidy chaos-part autobahn-part sdk official browser
	@tests/left-out.sh report

test-full: test autobahn chaos crowds

# The table of measurements for this machine, socket.io beside it where node is there. Nothing else should run meanwhile.
SOCKETIO := crates/tieline-bench/socketio
bench:
	cargo build --release -p tieline
	! command -v npm >/dev/null || (cd $(SOCKETIO) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error)
	TIELINE_LIMITS_MESSAGE_RATE=0 $(RELEASE) bench suite $$(! command -v npm >/dev/null || echo --socketio $(SOCKETIO))

lint: fmt clippy

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings

# Tests and binary come from one build, with one set of features.
unit:
	@tests/left-out.sh begin
	cargo test --workspace $(FEATURES)

# Nothing to do after `unit` but to look; by itself it makes sure that no old binary is tested.
binary:
	cargo build -p tieline $(FEATURES)

# Presence held against the truth for ten minutes, while users, links and nodes come and go as seeds say; `unit` has a quarter of a minute of it.
crowds:
	TIELINE_PRESENCE_SECONDS=600 cargo test -p tieline-core --test sessions crowds

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps $(FEATURES)

tidy:
	cargo xtask tidy
	cargo xtask docs --check

autobahn-part: binary
	@tests/left-out.sh run "Autobahn" tests/autobahn/run.sh $(BINARY)

# All 517 cases. Megabytes in fragments of 64 bytes, and compression without end: an optimised build or a long wait.
autobahn:
	cargo build --release -p tieline
	tests/autobahn/run.sh $(RELEASE) --all

sdk: binary
	@tests/left-out.sh run "the JavaScript SDKs" tests/run-sdk.sh $(BINARY) js
	@tests/left-out.sh run "the Python SDKs" tests/run-sdk.sh $(BINARY) python
	@tests/left-out.sh run "the JavaScript SDKs through a gateway" tests/run-sdk.sh $(BINARY) js gateway

# Our own clients of servers beside the official ones.
official:
	@tests/left-out.sh run "the official Hazelcast client" tests/run-hazelcast.sh --workspace $(FEATURES)

# The demo page in a real Chromium, which is installed from Debian's packages if it is not there.
browser: binary
	@tests/left-out.sh run "the demo page in a browser" tests/browser/run.sh $(BINARY)

# Half a minute of it: a node is added, others are killed and frozen, links are cut, delayed and lost.
chaos-part: binary
	cargo xtask chaos --binary $(BINARY) --broker mesh --store sqlite --seed 5 --seconds 10

# Clusters that are broken by a seed and judged, a minute and a half for each pair of broker and store: each broker, and stores
# with a server. docs/guarantees.md has what came out of longer ones.
CHAOS_PAIRS := mesh+sqlite redis+sqlite redis-cluster+sqlite sentinel+sqlite nats+sqlite rabbitmq+sqlite rocketmq+sqlite \
  hazelcast+sqlite kafka+sqlite mesh+redis redis+redis
CHAOS_SECONDS := 60
CHAOS_SEED := 1
CHAOS_RATE := 60
chaos: binary
	set -e; for pair in $(CHAOS_PAIRS); do \
	  cargo xtask chaos --binary $(BINARY) --broker $${pair%+*} --store $${pair#*+} \
	    --seed $(CHAOS_SEED) --seconds $(CHAOS_SECONDS) --rate $(CHAOS_RATE); \
	done

# cargo-deny is built once, into target/tools, if it is not installed. Advisories are fetched from the network.
DENY := advisories bans licenses sources
deny:
	command -v cargo-deny >/dev/null || test -x target/tools/bin/cargo-deny || \
	  cargo install cargo-deny --version 0.20.2 --locked --root target/tools
	PATH="$$PATH:$(CURDIR)/target/tools/bin" cargo deny check --hide-inclusion-graph $(DENY)

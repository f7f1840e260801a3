# Each target installs what it needs first (scripts/run).

.PHONY: demo test check unit bench endurance install

demo: ## the main job from end to end; KEEP=1 leaves it open; CLIENT=evolution, CUSTODY=host
	scripts/run python -m demo

test: ## everything: formatting, types, unit, host and machine tests
	scripts/run scripts/test

check: ## formatting, lint and types
	scripts/run scripts/test check

unit: ## the tests that need no daemon, in seconds
	scripts/run pytest --numprocesses auto --dist worksteal tests/unit

bench: ## every figure that has a goal, such as open against a stock machine
	scripts/run python -m benchmarks --json results.json

endurance: ## 20 opens and 50 suspends in a row, with what may change in between
	scripts/run python -m benchmarks.endurance

install: ## the `mailbox` command for this user
	scripts/install

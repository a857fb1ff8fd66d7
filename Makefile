# The README's two commands are `make demo` and `make test`; both set up everything themselves, in .venv.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/installed

.PHONY: demo test test-cluster check format clean

demo: $(SETUP)
	mkdir -p demo
	$(BIN)/python export/to_onnx.py --output demo/videodeblur.onnx
	$(BIN)/python runtime/deblur_video.py export/clips/bunny.mp4 demo/bunny_sharp.mp4 --model demo/videodeblur.onnx --overwrite
	$(BIN)/python runtime/deblur_video.py export/clips/kodak_blurry.mp4 demo/kodak_side_by_side.mp4 --model demo/videodeblur.onnx --compare side --overwrite
	$(BIN)/python benchmarks/quality.py export/clips/kodak_blurry.mp4 export/clips/kodak_sharp.mp4 --model demo/videodeblur.onnx --sheet demo/contact_sheet.png
	rm -rf demo/videodeblur.bundle
	$(BIN)/python export/to_bundle.py --onnx demo/videodeblur.onnx --output demo/videodeblur.bundle
	$(BIN)/python export/to_report.py demo/videodeblur.bundle --output demo/report.html

test: $(SETUP)
	$(BIN)/python -m pytest

test-cluster: $(SETUP)
	$(BIN)/python -m pytest -m cluster tests/test_cluster.py

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf .venv demo build *.egg-info

$(SETUP): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,video,cluster,export,training,benchmarks,dev]'
	touch $@

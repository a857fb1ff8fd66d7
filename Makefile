# The README's two commands are `make demo` and `make test`; both set up everything themselves, in .venv.
PYTHON ?= python3
# Passed on to pip, such as PIP_OPTIONS='--extra-index-url URL' for an index that holds PyTorch's CPU build.
PIP_OPTIONS ?=
INSTALL := -m pip install --quiet $(PIP_OPTIONS)
BIN := .venv/bin
SETUP := .venv/installed
TRITON := .venv-triton
VAPOURSYNTH := .venv-vapoursynth
# VapourSynth's wheels need Python 3.12 or newer, with a shared libpython for vspipe.
VAPOURSYNTH_PYTHON ?= python3.12

.PHONY: demo test test-cluster test-triton test-vapoursynth check format clean

demo: $(SETUP)
	rm -rf demo/videodeblur.bundle
	$(BIN)/python export/ship.py --target cpu --output demo/videodeblur.bundle
	$(BIN)/python runtime/deblur_video.py export/clips/bunny.mp4 demo/bunny_sharp.mp4 --model demo/videodeblur.bundle --overwrite
	$(BIN)/python runtime/deblur_video.py export/clips/kodak_blurry.mp4 demo/kodak_side_by_side.mp4 --model demo/videodeblur.bundle --compare side --overwrite
	$(BIN)/python benchmarks/quality.py export/clips/kodak_blurry.mp4 export/clips/kodak_sharp.mp4 --model demo/videodeblur.bundle --sheet demo/contact_sheet.png

test: $(SETUP)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-cluster: $(SETUP)
	$(BIN)/python -m pytest -m cluster tests/test_cluster.py

# A real Triton server, in an environment of its own: its wheel wants numpy before 2. About 650 MB, so not a part of `make test`.
test-triton: $(SETUP) $(TRITON)/installed
	$(BIN)/python -m pytest tests/test_triton_server.py

# VapourSynth's own wheels, in an environment of their Python, with the shipped weights.
test-vapoursynth: $(VAPOURSYNTH)/light.onnx $(VAPOURSYNTH)/installed
	VIDEODEBLUR_TINY_MODEL=$< $(VAPOURSYNTH)/bin/python -m pytest tests/test_vapoursynth.py

check: $(SETUP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(SETUP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

clean:
	rm -rf .venv $(TRITON) $(VAPOURSYNTH) demo build *.egg-info

$(SETUP): setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python $(INSTALL) --editable '.[cpu,video,cluster,triton,export,training,benchmarks,dev]'
	touch $@

$(TRITON)/installed:
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python $(INSTALL) nvidia-pytriton==0.7.0 'numpy<2' 'openvino>=2026.1' 'onnxruntime>=1.24'
	touch $@

$(VAPOURSYNTH)/installed: setup.cfg
	$(VAPOURSYNTH_PYTHON) -m venv $(VAPOURSYNTH)
	$(VAPOURSYNTH)/bin/python $(INSTALL) --editable '.[cpu,video,vapoursynth]' 'pytest>=8' 'vapoursynth-mlrt-ort>=17.1'
	touch $@

$(VAPOURSYNTH)/light.onnx: $(SETUP) $(VAPOURSYNTH)/installed
	$(BIN)/python export/to_onnx.py --output $@

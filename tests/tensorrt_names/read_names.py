"""Prints the names in a wheel of TensorRT's bindings, in the form of the files beside this one.

Needs gcc, nm and readelf, no GPU and no TensorRT: empty functions stand in for its libraries, since nothing of them is called.


pip download --no-deps tensorrt-cu13-bindings==11.5.*    with this Python's version: the bindings are imported
python tests/tensorrt_names/read_names.py tensorrt_cu13_bindings-11.5.*.whl > tests/tensorrt_names/tensorrt-11.5.txt
"""

import importlib.util
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLASSES = [line.partition(":")[0] for line in (Path(__file__).parent / "tensorrt-11.4.txt").read_text().splitlines()]


def main(wheel):
    """Unpacks the wheel, and goes on in a process that finds the stand-ins."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
        library = next(Path(folder).glob("*_bindings/*.so"))
        write_stand_ins(library)
        subprocess.run([sys.executable, __file__, "--names", library], env={"LD_LIBRARY_PATH": str(library.parent)}, check=True)


def write_stand_ins(library):
    """Shared libraries with what the bindings ask for and nothing else provides."""
    needed = re.findall(r"\[(libnv[^]]+)\]", output("readelf", "-d", library))
    asked = [line.split()[-1] for line in output("nm", "-D", "--undefined-only", library).splitlines()]
    absent = [
        name for name in asked if "@" not in name and not name.startswith(("Py", "_Py", "_ITM", "__gmon", "__cxa", "_ZTVN10"))
    ]
    source = library.with_name("stand_ins.s")
    source.write_text("\n".join(f".globl {name}\n{name}: xor %eax, %eax\nret\n.zero 64" for name in absent) + "\n")
    for name in needed:
        subprocess.run(["gcc", "-shared", "-nostdlib", "-o", library.with_name(name), source, f"-Wl,-soname,{name}"], check=True)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def print_names(library):
    """Of the module and of the classes that the tests ask for."""
    spec = importlib.util.spec_from_file_location(library.stem, library)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in CLASSES:
        found = module if name == "module" else getattr(module, name, None)
        if found is not None:
            print(f"{name}:", *(each for each in dir(found) if not each.startswith("_")))


if __name__ == "__main__":
    if sys.argv[1] == "--names":
        print_names(Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))

"""Install Detectron2 0.6 as a pure-Python wheel, where no Detectron2 is installed yet.

PyPI has no project ``detectron2``. The sdist ``pb1-detectron2==0.6`` holds the Python files of the
upstream tag v0.6 byte for byte, but not the C++ sources, so it cannot be built as it is. This
program fetches it with its hash checked, applies the FIXES that today's PyTorch, NumPy and Pillow
need, and writes the wheel ``detectron2-0.6+purepython``. See docs/install.md.

    python tools/install_detectron2.py                    # install, unless detectron2 is there
    python tools/install_detectron2.py --wheel-dir DIR    # only build the wheel into DIR

PyTorch and setuptools 81 must be installed first: pip fetches an sdist by running its setup.py,
which imports both (setuptools 65, which a new environment may bring, is too old). Errors are one
line on stderr with exit code 1.
"""

import argparse
import base64
import csv
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+purepython"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"


class InstallError(Exception):
    """The problem and its remedy, in one line."""


class Fix(NamedTuple):
    """Every occurrence of `old` in `file` (below detectron2/) becomes `new`."""

    file: str
    old: str
    new: str
    why: str


_IMPORT_C = "from detectron2 import _C\n"
_MISSING_OPS = """\
try:
    from detectron2 import _C
except ImportError:

    class _MissingOps:
        def __getattr__(self, name):
            raise NotImplementedError(
                f"{name} needs Detectron2's compiled ops, which this pure-Python wheel lacks"
            )

    _C = _MissingOps()
"""
_OPTIONAL_C = """\
try:
    from detectron2 import _C
except ImportError:
    _C = None
"""
_DEFORM_CONV = """\
deform_conv = _DeformConv.apply
modulated_deform_conv = _ModulatedDeformConv.apply
"""
_DEFORM_CONV_TORCHVISION = """\
if _C is not None:
    deform_conv = _DeformConv.apply
    modulated_deform_conv = _ModulatedDeformConv.apply
else:
    # torchvision reads both numbers of groups from the shapes of weight and offset.

    def deform_conv(
        input, offset, weight, stride=1, padding=0, dilation=1, groups=1, deformable_groups=1
    ):
        return deform_conv2d(
            input, offset, weight, stride=stride, padding=padding, dilation=dilation
        )

    def modulated_deform_conv(
        input,
        offset,
        mask,
        weight,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        deformable_groups=1,
    ):
        return deform_conv2d(
            input,
            offset,
            weight,
            bias=bias,
            stride=stride,
            padding=padding,
            dilation=dilation,
            mask=mask,
        )
"""
_FAST_COCOEVAL = "from detectron2.evaluation.fast_eval_api import COCOeval_opt\n"
_OPTIONAL_FAST_COCOEVAL = """\
try:
    from detectron2.evaluation.fast_eval_api import COCOeval_opt
except ImportError:
    COCOeval_opt = COCOeval
"""
_EXPORT_API = "from .api import *\n"
_OPTIONAL_EXPORT_API = """\
try:
    from caffe2.proto import caffe2_pb2 as _caffe2_pb2
    from caffe2.python import core as _caffe2_core
except ImportError:
    pass
else:
    from .api import *
"""
_ZOO_FILE = """\
    cfg_file = pkg_resources.resource_filename(
        "detectron2.model_zoo", os.path.join("configs", config_path)
    )
"""
_ZOO_FILE_PLAIN = """\
    cfg_file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)
"""

FIXES = (
    Fix(
        "data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "Pillow 10 removed Image.LINEAR, the old name of Image.BILINEAR",
    ),
    Fix("layers/deform_conv.py", _IMPORT_C, _OPTIONAL_C, "there are no compiled ops in this wheel"),
    Fix(
        "layers/deform_conv.py",
        _DEFORM_CONV,
        _DEFORM_CONV_TORCHVISION,
        "without compiled ops, deformable convolutions are torchvision's",
    ),
    Fix(
        "layers/roi_align_rotated.py",
        _IMPORT_C,
        _MISSING_OPS,
        "without compiled ops, rotated ROIAlign fails when called, not when imported",
    ),
    Fix(
        "layers/rotated_boxes.py",
        _IMPORT_C,
        _MISSING_OPS,
        "without compiled ops, rotated boxes fail when used, not when imported",
    ),
    Fix(
        "evaluation/coco_evaluation.py",
        _FAST_COCOEVAL,
        _OPTIONAL_FAST_COCOEVAL,
        "without compiled ops, COCO evaluation is pycocotools'",
    ),
    Fix(
        "export/__init__.py",
        _EXPORT_API,
        _OPTIONAL_EXPORT_API,
        "PyTorch no longer ships caffe2, which the caffe2 export imports",
    ),
    Fix("data/build.py", "dtype=np.int)", "dtype=int)", "NumPy 1.24 removed np.int"),
    Fix("data/build.py", "dtype=np.int\n", "dtype=int\n", "NumPy 1.24 removed np.int"),
    Fix(
        "evaluation/sem_seg_evaluation.py",
        "dtype=np.int)",
        "dtype=int)",
        "NumPy 1.24 removed np.int",
    ),
    Fix("evaluation/sem_seg_evaluation.py", "np.float)", "float)", "NumPy 1.24 removed np.float"),
    Fix("data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)", "NumPy 1.24 removed np.str"),
    Fix(
        "model_zoo/model_zoo.py",
        "import pkg_resources\n",
        "",
        "setuptools 82 removed pkg_resources",
    ),
    Fix(
        "model_zoo/model_zoo.py", _ZOO_FILE, _ZOO_FILE_PLAIN, "setuptools 82 removed pkg_resources"
    ),
)

METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2 0.6 repackaged without compiled ops, with small fixes for current libraries
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
Classifier: License :: OSI Approved :: Apache Software License
Classifier: Programming Language :: Python :: 3
Requires-Python: >=3.10
Requires-Dist: torch>=2.3
Requires-Dist: torchvision>=0.18
Requires-Dist: numpy>=2.0
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.8
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore>=0.1.5,<0.1.6
Requires-Dist: iopath>=0.1.7,<0.1.11
Requires-Dist: omegaconf>=2.1
Requires-Dist: hydra-core>=1.1
Requires-Dist: black>=21.4b2
Description-Content-Type: text/markdown

An unofficial repackaging of [Detectron2](https://github.com/facebookresearch/detectron2) v0.6 as a
pure-Python wheel. It holds upstream's Python files and model zoo configurations, without the
compiled extension `detectron2._C`. Deformable convolution and COCO evaluation use torchvision and
pycocotools instead; rotated boxes, caffe2 export and Panoptic-DeepLab do not work.
Each changed file names its changes in its first line.
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: install_detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""


def read_sdist(path: Path) -> dict[str, bytes]:
    """Reads the files of a ``.tar.gz`` sdist, by their path below its top folder."""
    files = {}
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                files["/".join(PurePosixPath(member.name).parts[1:])] = content.read()
    return files


def select_package(files: dict[str, bytes]) -> dict[str, bytes]:
    """Picks what upstream's setup.py installs, by path in the wheel.

    ``projects/PointRend/point_rend`` and its two siblings become ``detectron2.projects.*``.
    """
    package = {}
    for name, content in files.items():
        parts = PurePosixPath(name).parts
        if parts[0] == "detectron2":
            package[name] = content
        elif parts[0] == "projects":
            package["/".join(("detectron2", "projects", *parts[2:]))] = content
        elif name == "LICENSE":
            package[f"{DIST_INFO}/LICENSE"] = content
    return package


def apply_fixes(package: dict[str, bytes], fixes: tuple[Fix, ...] = FIXES) -> dict[str, bytes]:
    """Applies the fixes and names them in the first line of each changed file.

    Raises:
        InstallError: A file or a text that a fix expects is absent.
    """
    package = dict(package)
    reasons: dict[str, list[str]] = {}
    for fix in fixes:
        name = f"detectron2/{fix.file}"
        text = package.get(name, b"").decode()
        if fix.old not in text:
            raise InstallError(
                f"{name} does not hold the text {fix.old!r} that a fix replaces ({fix.why}): "
                f"the source is not {SDIST}"
            )
        package[name] = text.replace(fix.old, fix.new).encode()
        whys = reasons.setdefault(name, [])
        if fix.why not in whys:
            whys.append(fix.why)
    for name, whys in reasons.items():
        notice = f"# Modified for detectron2 {VERSION}: {'; '.join(whys)}.\n"
        package[name] = notice.encode() + package[name]
    return package


def write_wheel(package: dict[str, bytes], directory: Path) -> Path:
    """Writes the wheel; the same files give the same bytes everywhere.

    Nothing is compressed, because compressed bytes differ between builds of zlib.
    """
    files = {
        **package,
        f"{DIST_INFO}/METADATA": METADATA.encode(),
        f"{DIST_INFO}/WHEEL": WHEEL.encode(),
    }
    record_name, record = f"{DIST_INFO}/RECORD", io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, content in sorted(files.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        rows.writerow((name, f"sha256={digest.decode()}", len(content)))
    rows.writerow((record_name, "", ""))

    path = directory / WHEEL_NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in [*sorted(files.items()), (record_name, record.getvalue().encode())]:
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, whatever system builds the wheel
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return path


def run_pip(*arguments: str) -> None:
    """Runs this interpreter's pip.

    Raises:
        InstallError: pip failed; with what its output says.
    """
    command = [sys.executable, "-m", "pip", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in result.stderr:
        raise InstallError(
            f"{SDIST} from the package index has the wrong hash (expected sha256 {SDIST_SHA256}): "
            "it was not used; check the index that pip is set up with"
        )
    if "No matching distribution found" in result.stderr:
        raise InstallError(
            f"pip finds no {SDIST}: check the network and the package index that pip is set up with"
        )
    errors = [line for line in result.stderr.splitlines() if line.lower().startswith("error:")]
    reason = errors[-1][len("error:") :].strip() if errors else f"exit code {result.returncode}"
    raise InstallError(f"pip {arguments[0]} failed: {reason}; PIP_LOG=FILE shows all of its output")


def fetch_sdist(directory: Path, sha256: str = SDIST_SHA256) -> Path:
    """Downloads the sdist; pip checks its hash before it runs anything of it.

    Raises:
        InstallError: PyTorch is absent, or pip failed.
    """
    if importlib.util.find_spec("torch") is None:
        raise InstallError(
            "PyTorch must be installed first: pip install -c constraints.txt torch torchvision"
        )
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{SDIST} --hash=sha256:{sha256}\n")
    options = ("--no-deps", "--no-build-isolation", "--no-binary=:all:", "--require-hashes")
    run_pip("download", *options, "-r", str(requirements), "-d", str(directory))
    return next(directory.glob("*.tar.gz"))


def build_wheel(directory: Path) -> Path:
    """Fetches the sdist, applies the fixes and writes the wheel into `directory`."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as download:
            package = select_package(read_sdist(fetch_sdist(Path(download))))
        return write_wheel(apply_fixes(package), directory)
    except OSError as error:
        raise InstallError(
            f"cannot write to {directory}: {error.strerror or error}; name a writable directory"
        ) from error


def installed_version() -> str | None:
    """The version of the Detectron2 that this interpreter imports, or None without one.

    Raises:
        InstallError: One is installed, but its import fails.
    """
    if importlib.util.find_spec("detectron2") is None:
        return None
    try:
        module = importlib.import_module("detectron2")
    except Exception as error:  # whatever another build raises
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InstallError(
            f"detectron2 is installed but its import fails ({reason}): "
            "repair it, or run pip uninstall detectron2"
        ) from error
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return str(module.__version__)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wheel-dir", type=Path, help="only build the wheel into this directory")
    wheel_dir = parser.parse_args(arguments).wheel_dir
    try:
        if wheel_dir is not None:
            print(f"built {build_wheel(wheel_dir)}")
            return 0
        version = installed_version()
        if version is None:
            with tempfile.TemporaryDirectory() as directory:
                # No index: the name detectron2 is free on PyPI, so nothing there may shadow it.
                wheel = build_wheel(Path(directory))
                run_pip("install", "--no-index", "--no-deps", str(wheel))
            print(f"installed detectron2 {VERSION}")
        else:
            print(f"using the installed detectron2 {version}")
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Everything is declared in setup.cfg; this file adds configs/ to a wheel, as `lad/configs`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """An editable install finds configs/ beside projects/."""

    def run(self):
        """Builds the package."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "lad/configs")
            shutil.copytree(
                "configs", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )


setup(cmdclass={"build_py": BuildWithConfigs})

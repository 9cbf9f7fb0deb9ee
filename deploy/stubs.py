"""Write type stubs for xds-protos, which ships none: `python deploy/stubs.py build/stubs`."""

import sys
from importlib import import_module
from importlib.metadata import files
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

ROOTS = ("envoy/", "xds/", "udpa/", "validate/", "google/rpc/")


def described() -> FileDescriptorSet:
    """Every proto file that the wheel holds, each after the files it depends on."""
    files_in_order = FileDescriptorSet()
    seen: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in seen:
            return
        seen.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        file.CopyToProto(files_in_order.file.add())

    for path in files("xds-protos") or ():
        if path.name.endswith("_pb2.py") and str(path).startswith(ROOTS):
            module = str(path).removesuffix(".py").replace("/", ".")
            add(import_module(module).DESCRIPTOR)
    return files_in_order


def main(out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    descriptors = described()
    packed = out / "descriptors.pb"
    packed.write_bytes(descriptors.SerializeToString())
    names = [f.name for f in descriptors.file if not f.name.startswith("google/protobuf/")]
    status: int = protoc.main(
        ["protoc", f"--descriptor_set_in={packed}", f"--pyi_out={out}", *names]
    )
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

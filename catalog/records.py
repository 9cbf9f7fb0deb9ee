"""What a platform lists of one machine, in the mesh or not."""

from msgspec import Struct


class Record(Struct, frozen=True):
    """Names are in lower case; values of tags as they are."""

    machine: str  # the id that it is attested by
    resource: str  # the platform's own id of it
    name: str = ""
    scale_set: str = ""
    subnet: str = ""  # <network>/<subnet>, of its primary interface
    address: str = ""  # where it is called
    tags: tuple[tuple[str, str], ...] = ()  # sorted

    @property
    def group(self) -> str:
        """/subscriptions/<id>/resourcegroups/<name>/…"""
        return self.resource.split("/")[4] if self.resource.count("/") > 4 else ""

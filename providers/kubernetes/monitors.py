"""Which namespaces of a cluster count: those named, or those with one of the labels."""

from collections.abc import Callable

from meshfed.providers.kubernetes import objects
from meshfed.providers.kubernetes.messages import Api
from meshfed.providers.kubernetes.options import Monitored
from meshfed.providers.kubernetes.reflect import Change, Kind, Pace, Reflector

PATH = "/api/v1/namespaces"


class Monitors:
    """Namespaces by name are never even listed."""

    def __init__(
        self,
        monitored: Monitored,
        api: Api,
        pace: Pace,
        heard: Callable[[Change[objects.Namespace]], None],
        wake: Callable[[], None],
    ) -> None:
        self.reflectors = [
            Reflector(api, Kind(PATH, objects.Namespace, objects.name, label), heard, wake, pace)
            for label in monitored.labels
        ]
        self._names = monitored.names

    @property
    def known(self) -> bool:
        return all(each.lists for each in self.reflectors)

    @property
    def names(self) -> set[str]:
        found = {name for each in self.reflectors for _, name in each.held}
        return found.union(self._names)

    @property
    def trouble(self) -> str:
        """Why it cannot be heard which they are."""
        troubles = (each.trouble for each in self.reflectors)
        return next((f"namespaces: {trouble}" for trouble in troubles if trouble), "")

"""Whether Azure lets itself be asked: credentials, each right that is needed, and what is left."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from meshfed.providers.azure import lists
from meshfed.providers.azure.lists import Arm, List, Reader, Refused, T, Unreachable, Unread
from meshfed.providers.azure.machines import is_uniform
from meshfed.providers.azure.options import Options
from meshfed.providers.azure.pace import LITTLE, Budget
from meshfed.providers.provider import Examined

RIGHTS = "assign the role of deploy/aks/role.json there: minutes pass until it is seen"
ACCESS = "see `auth` and `cloud`, and whether this machine gets there"
LATER = "wait, or ask as an identity of its own"
SPARINGLY = "ask less often (`refresh`), or as an identity of its own"
REMEDIES = {401: ACCESS, 403: RIGHTS, 404: "see `subscriptions`", 429: LATER}


async def examine(arm: Arm, options: Options) -> AsyncIterator[Examined]:
    """One page of each list that the provider reads, in each subscription."""
    for subscription in options.subscriptions:
        async for found in Examination(arm, subscription, public=options.choice.public).findings():
            yield found


class Examination:
    """Of one subscription."""

    def __init__(self, arm: Arm, subscription: str, *, public: bool) -> None:
        self._subscription = subscription
        self._public = public
        self._budget = Budget()
        self._reader = Reader(arm, asyncio.Semaphore(1), self._heard, {})

    async def findings(self) -> AsyncIterator[Examined]:
        fine = True
        async for trouble in self._troubles():
            fine = False
            status = trouble.status if isinstance(trouble, Refused) else 401
            remedy = REMEDIES.get(status, "try again: it is Azure that fails")
            yield Examined(self._subscription, str(trouble), remedy)
        if fine:
            yield Examined(self._subscription, "all that is needed may be read")
        if self._budget.buckets:
            share = self._budget.share
            what = f"{share:.0%} of what may be asked is left"
            yield Examined(self._subscription, what, SPARINGLY if share < LITTLE else "")

    async def _troubles(self) -> AsyncIterator[Unread]:
        """What cannot be read, of the subscription and of its first Uniform set."""
        parent = f"/subscriptions/{self._subscription}"
        first = await self._trouble(lists.MACHINES, parent)
        if isinstance(first, Unreachable):  # nor will anything else be answered
            yield first
            return
        found = [first, await self._trouble(lists.STATES, parent)]
        found.append(await self._trouble(lists.NICS, parent))
        if self._public:
            found.append(await self._trouble(lists.PUBLIC, parent))
        try:
            for of in await self._uniform(parent):
                found.append(await self._trouble(lists.INSTANCES, of))
                found.append(await self._trouble(lists.SET_NICS, of))
                if self._public:
                    found.append(await self._trouble(lists.SET_PUBLIC, of))
        except Unread as unread:
            found.append(unread)
        for each in found:
            if each:
                yield each

    async def _uniform(self, parent: str) -> list[str]:
        sets = await self._reader.first(lists.SETS, parent)
        return [each.id for each in sets if is_uniform(each)][:1]

    async def _trouble(self, what: List[T], parent: str) -> Unread | None:
        try:
            await self._reader.first(what, parent)
        except Unread as unread:
            return unread
        return None

    async def _heard(self, headers: Mapping[str, str]) -> None:
        self._budget = self._budget.heard(headers)

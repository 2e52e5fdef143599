"""Actor classes keep their constructor; what a handle's methods take and give is not known to the checker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import reveal_type

import actorlib
from actorlib import ActorHandle


class Account:
    def __init__(self, owner: str, balance: int = 0) -> None:
        self.owner = owner
        self.balance = balance

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    async def fetch(self) -> int:
        return self.balance

    @actorlib.method(num_returns=2, concurrency_group="io")
    def both(self, sign: int) -> tuple[str, int]:
        return self.owner, sign * self.balance

    def history(self) -> Iterator[int]:
        yield self.balance


RemoteAccount = actorlib.remote(Account)
Configured = actorlib.remote(num_cpus=1, max_restarts=1)(Account)

reveal_type(RemoteAccount)  # N: ActorClass[[owner: str, balance: int =], actors.Account]
reveal_type(Configured)  # N: ActorClass[[owner: str, balance: int =], actors.Account]

# -- creation
reveal_type(RemoteAccount.remote("a"))  # N: ActorHandle[actors.Account]
reveal_type(RemoteAccount.remote(owner="a", balance=1))  # N: ActorHandle[actors.Account]
reveal_type(RemoteAccount.options(name="a").remote("a"))  # N: ActorHandle[actors.Account]
reveal_type(RemoteAccount.remote(actorlib.put("a"), 1))  # N: ActorHandle[actors.Account]
RemoteAccount.remote()  # E: All overload variants of "remote" of "ActorClass" require at least one argument
RemoteAccount.remote(1)  # E: No overload variant of "remote" of "ActorClass" matches argument type "int"
RemoteAccount.remote("a", colour="red")  # E: No overload variant
RemoteAccount.options(name="a").remote(1)  # E: No overload variant of "remote" of "ConfiguredActor"
Configured.remote(1)  # E: No overload variant
reveal_type(RemoteAccount.cls("a").deposit(1))  # N: "int"

# -- calls: methods are found at run time, and checked where the call is made
account: ActorHandle[Account] = RemoteAccount.remote("a")
reveal_type(account.deposit)  # N: ActorMethod
reveal_type(account.deposit.remote(1))  # N: "Any"
reveal_type(account.fetch.remote())  # N: "Any"
reveal_type(account.history.remote())  # N: "Any"
reveal_type(account.both.options(num_returns=1).remote(1))  # N: "Any"
reveal_type(account.deposit.map([1, 2]))  # N: Iterator[Any]
account.deposit.later(1)  # E: "ActorMethod" has no attribute "later"
reveal_type(actorlib.get_actor("a"))  # N: ActorHandle[Any]
actorlib.kill(RemoteAccount)  # E: Argument 1 to "kill" has incompatible type "ActorClass[
actorlib.kill(account)

# -- @method keeps the method as it is, for calls inside of the actor
reveal_type(Account("a").both(1))  # N: tuple[str, int]
Account("a").both("1")  # E: Argument 1 to "both" of "Account" has incompatible type "str"; expected "int"


# -- mypy doesn't look at what a decorator makes of a class (python/mypy#3135); the form above works with it.
@actorlib.remote
class Decorated:
    def __init__(self, x: int) -> None:
        self.x = x


Decorated.remote(1)  # E: "type[Decorated]" has no attribute "remote"

"""The plugins of one's own that the documentation shows, as it shows them."""

from __future__ import annotations

import random
from collections import deque

from amltk_nb import Event, Plugin


class Budget(Plugin):
    """Refuses calls once those before them have taken so many seconds."""

    name = "budget"

    def __init__(self, seconds):
        self.left_s = seconds

    def pre_submit(self, fn, *args, **kwargs):
        return (fn, args, kwargs) if self.left_s > 0 else None

    def release(self, call):
        if call is not None and call.seconds:
            self.left_s -= call.seconds


class Seeds(Plugin):
    """Gives every call a seed of its own, all of them following from one."""

    name = "seeds"

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pre_submit(self, fn, *args, **kwargs):
        kwargs.setdefault("seed", self.random.randrange(1000))
        return fn, args, kwargs


class Slow(Plugin):
    """Tells of calls that took long."""

    name = "slow"

    def __init__(self, limit_s):
        self.limit_s = limit_s

    def events(self):
        return [Event("slow-call")]

    def release(self, call):
        if call is not None and (call.seconds or 0) > self.limit_s:
            call.task.announce("slow-call", call)


class Licences(Plugin):
    """Lends each call one of a few licences for as long as it is under way."""

    name = "licences"

    def __init__(self, n):
        self.n, self.free = n, deque(range(n))  # whose methods are safe on any thread

    def pre_submit(self, fn, *args, **kwargs):
        if not self.free:
            return None
        self.free.pop()
        return fn, args, kwargs

    def release(self, call):
        self.free.append(call)

    def state(self):
        return {"Licences": f"{self.n - len(self.free)} of {self.n} lent"}

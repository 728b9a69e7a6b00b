"""The Lua of the Redis lock. Each script is one atomic step at the server, one round trip.

Keys, the same four for every script, in one hash slot through the {braces}:

    lease:{key}:owner     string  `token|fence|ms` of the holder; its time to live is the lease,
                                  which was given for so many milliseconds
    lease:{key}:fence     string  the last fence minted; kept a day, so that it outlives its use
    lease:{key}:queue     list    tokens of waiters, first come first served
    lease:{key}:waiters   hash    token -> `channel|end` (microseconds by the server's clock);
                                  whoever gave up is in the queue at most, not here

A fence is max(last + 1, server's clock in microseconds, floor + 1): if Redis comes back empty the
clock carries it on; if the clock steps back the last one does; after both, the floor, which the
holder's resource told. There some salt is added, lest after a second wipe the same fence be minted
again. Numbers are formatted with %.0f: Lua's tostring loses digits above 1e14.

Redis keeps the end of a time to live as wall time. If its clock steps back, a dead holder's lease
would last longer by the step; so whoever finds more time left than was ever given cuts it down.
"""

import hashlib
from dataclasses import dataclass

from locks.on_redis.link import packed, packed_words
from locks.protocol import MAX_FENCE

FENCE_TTL_S = 86_400
# A waiter that is handed the key has it for so long; by then it must have said that it is alive.
CLAIM_MS = 2_000
# Queue keys outlive their last waiter by this, in case it dies without a word.
QUEUE_SLACK_MS = 60_000
# What RELEASE answers when a waiter was served.
HANDED_OVER = 2
# An operator is shown no more waiters of one key than this.
MAX_SHOWN_WAITERS = 1_000

_COMMON = f"""
local owner_key, fence_key, queue_key, waiters_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function split(text)
  return string.match(text, '^(.*)|([^|]*)$')
end

-- Who holds the key, with which fence, and for how long it was given.
local function read_owner()
  local owner = redis.call('GET', owner_key)
  if owner then
    return string.match(owner, '^([^|]*)|([^|]*)|([^|]*)$')
  end
end

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function own(token, fence, ttl_ms)
  redis.call('SET', owner_key, token .. '|' .. fence .. '|' .. ttl_ms, 'PX', ttl_ms)
end

local function grant(token, ttl_ms, floor, salt, now)
  local last = tonumber(redis.call('GET', fence_key) or 0) or 0
  if last == {MAX_FENCE} then
    error('The fences of this key are used up: choose another key.')
  end
  if not (last >= 0 and last < {MAX_FENCE}) then
    last = 0 -- damaged: the clock goes on
  end
  local number = math.max(last + 1, now)
  if number <= floor then
    number = floor + 1 + salt
  end
  local fence = string.format('%.0f', number)
  redis.call('SET', fence_key, fence, 'EX', {FENCE_TTL_S})
  own(token, fence, ttl_ms)
  return fence
end

-- Take from the queue until a waiter is found that lives: whose time is not over and whose channel
-- somebody listens on. It is granted the key for as long as a claim lasts, and told so, by the
-- message `token|fence|now`. If it is `me`, nothing is granted or told. Gives whether nobody was
-- served; what stood in the owner's key may be gone then, or not.
local function serve_next(me)
  local token = redis.call('LPOP', queue_key)
  while token do
    if token == me then
      redis.call('HDEL', waiters_key, me)
      return true
    end
    local waiter = redis.call('HGET', waiters_key, token)
    if waiter then
      redis.call('HDEL', waiters_key, token)
      local channel, ends = split(waiter)
      local now = now_us()
      if tonumber(ends) > now then
        local fence = grant(token, {CLAIM_MS}, 0, 0, now)
        local message = string.format('%s|%s|%.0f', token, fence, now)
        if redis.call('PUBLISH', channel, message) > 0 then
          return false
        end
        redis.call('DEL', owner_key)
      end
    end
    token = redis.call('LPOP', queue_key)
  end
  return true
end
"""

# ARGV: token, lease_ms, floor, salt, channel, wait_ms (0: do not queue).
# Gives the fence if the key is held by the token; if not: {holders and waiters there were before,
# milliseconds to the holder's end, now}.
# May be repeated with the same token.
_ACQUIRE = """
local token, lease_ms, floor, salt = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local channel, wait_ms = ARGV[5], tonumber(ARGV[6])
local holder, fence, given_ms = read_owner()
if holder == token then
  if tonumber(fence) <= floor then
    return grant(token, lease_ms, floor, salt, now_us())
  end
  own(token, fence, lease_ms)
  return fence
end
if not holder and serve_next(token) then
  return grant(token, lease_ms, floor, salt, now_us())
end
local now, before = now_us(), 0
if wait_ms > 0 and redis.call('HSET', waiters_key, token,
    string.format('%s|%.0f', channel, now + wait_ms * 1000)) == 1 then
  before = redis.call('RPUSH', queue_key, token)
else
  before = 1 + redis.call('LLEN', queue_key)
end
local keep_ms = wait_ms + @SLACK@
if wait_ms > 0 and redis.call('PTTL', queue_key) < keep_ms then
  redis.call('PEXPIRE', queue_key, keep_ms)
  redis.call('PEXPIRE', waiters_key, keep_ms)
end
local left_ms = redis.call('PTTL', owner_key)
if given_ms and left_ms > tonumber(given_ms) then
  redis.call('PEXPIRE', owner_key, given_ms)
  left_ms = tonumber(given_ms)
end
return {before, left_ms, now}
""".replace("@SLACK@", str(QUEUE_SLACK_MS))

# ARGV: token. Ends a holding (the next waiter is served) or a waiting. Gives 0 if it was not held,
# 1 if it was, 2 if it was and a waiter has it now.
_RELEASE = f"""
local token = ARGV[1]
if read_owner() == token then
  if not serve_next('') then
    return {HANDED_OVER}
  end
  redis.call('DEL', owner_key)
  return 1
end
if redis.call('HDEL', waiters_key, token) == 1 then
  redis.call('LREM', queue_key, 1, token)
end
return 0
"""

# No ARGV. Serves the next waiter if nobody has the key. Gives the milliseconds that a claim still
# has, be it the one that was found or a new one; 0 if none is open.
_WATCH = f"""
local holder, _, given_ms = read_owner()
if holder then
  if given_ms ~= '{CLAIM_MS}' then
    return 0
  end
  local left_ms = redis.call('PTTL', owner_key)
  if left_ms > {CLAIM_MS} then
    redis.call('PEXPIRE', owner_key, {CLAIM_MS})
    left_ms = {CLAIM_MS}
  end
  return left_ms
end
if serve_next('') then
  return 0
end
return {CLAIM_MS}
"""

# ARGV: token, lease_ms. Gives 1 if the token holds the key, now for lease_ms again.
_RENEW = f"""
local holder, fence = read_owner()
if holder == ARGV[1] then
  own(holder, fence, ARGV[2])
  redis.call('EXPIRE', fence_key, {FENCE_TTL_S})
  return 1
end
return 0
"""

# ARGV: `look` or `break`. Gives {} if nobody holds the key, or else {token, fence, milliseconds
# left, waiter, waiter, …}; `break` ends that holding, and the next waiter is served.
_INSPECT = f"""
local token, fence = read_owner()
if not token then
  return {{}}
end
local found = {{token, fence, redis.call('PTTL', owner_key)}}
local now = now_us()
for _, waiting in ipairs(redis.call('LRANGE', queue_key, 0, {MAX_SHOWN_WAITERS - 1})) do
  local waiter = redis.call('HGET', waiters_key, waiting)
  if waiter then
    local _, ends = split(waiter)
    if tonumber(ends) > now then
      found[#found + 1] = waiting
    end
  end
end
if ARGV[1] == 'break' and serve_next('') then
  redis.call('DEL', owner_key)
end
return found
"""


@dataclass(frozen=True)
class Script:
    """A script, and the beginning of the request that runs it."""

    text: str
    sha: str
    """The name by which Redis caches it (SCRIPT LOAD)."""
    opening: bytes

    def by_sha(self, key: str, *arguments: str | int) -> bytes:
        """The request that runs it if the server knows it; if not, it answers NOSCRIPT."""
        return self.opening + _packed_keys(key) + packed_words(*arguments)

    def by_text(self, key: str, *arguments: str | int) -> bytes:
        """The request that runs it and makes it known to the server."""
        return packed("EVAL", self.text, KEYS, *lock_keys(key), *arguments)


KEYS = 4


def _script(text: str, arguments: int) -> Script:
    whole = _COMMON + text
    sha = hashlib.sha1(whole.encode("utf-8"), usedforsecurity=False).hexdigest()
    opening = b"*%d\r\n" % (3 + KEYS + arguments) + packed_words("EVALSHA", sha, KEYS)
    return Script(whole, sha, opening)


ACQUIRE = _script(_ACQUIRE, 6)
RELEASE = _script(_RELEASE, 1)
RENEW = _script(_RENEW, 2)
WATCH = _script(_WATCH, 0)
INSPECT = _script(_INSPECT, 1)


def lock_keys(key: str) -> list[str]:
    """The four Redis keys of a lock's key, in the scripts' order."""
    return [f"lease:{{{key}}}:{part}" for part in ("owner", "fence", "queue", "waiters")]


# As SCAN matches it: the braces are plain signs there.
OWNER_PATTERN = "lease:{*}:owner"


def key_of_owner(name: str) -> str:
    """The lock's key whose owner this Redis key names."""
    return name.removeprefix("lease:{").removesuffix("}:owner")


def _packed_keys(key: str) -> bytes:
    """lock_keys, packed. All in one step: this is asked for twice in every lease."""
    name, size = key.encode(), len(key)
    return (
        b"$%d\r\nlease:{%b}:owner\r\n$%d\r\nlease:{%b}:fence\r\n"
        b"$%d\r\nlease:{%b}:queue\r\n$%d\r\nlease:{%b}:waiters\r\n"
        % (size + 14, name, size + 14, name, size + 14, name, size + 16, name)
    )

"""The Lua of the Redis lock. Each script is one atomic step at the server, one round trip.

Keys, the same four for every script, in one hash slot through the {braces}:

    lease:{key}:owner     string  `token|fence` of the holder; its time to live is the lease
    lease:{key}:fence     string  the last fence minted; kept a day, so that it outlives its use
    lease:{key}:queue     list    tokens of waiters, first come first served
    lease:{key}:waiters   hash    token -> `channel|end` (microseconds by the server's clock);
                                  whoever gave up is in the queue at most, not here

A fence is max(last + 1, server's clock in microseconds, floor + 1): if Redis comes back empty the
clock carries it on; if the clock steps back the last one does; after both, the floor, which the
holder's resource told. Numbers are formatted with %.0f: Lua's tostring loses digits above 1e14.
"""

import hashlib
from dataclasses import dataclass

FENCE_TTL_S = 86_400
# A granted waiter has this long to say that it is alive; then the next is served.
CLAIM_MS = 2_000
# Queue keys outlive their last waiter by this, in case it dies without a word.
QUEUE_SLACK_MS = 60_000

_COMMON = f"""
local owner_key, fence_key, queue_key, waiters_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local function split(text)
  local first, second = string.match(text, '^(.*)|([^|]*)$')
  return first, second
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function grant(token, ttl_ms, floor, now)
  local last = tonumber(redis.call('GET', fence_key) or '0')
  local fence = string.format('%.0f', math.max(last + 1, now, floor + 1))
  redis.call('SET', fence_key, fence, 'EX', {FENCE_TTL_S})
  redis.call('SET', owner_key, token .. '|' .. fence, 'PX', ttl_ms)
  return fence
end

-- Take from the queue until a waiter is found that lives: whose time is not over and whose channel
-- somebody listens on. It is granted the key for as long as a claim lasts, and told so. If it is
-- `me`, nothing is granted or told: true is returned.
local function serve_next(me, now)
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
      if tonumber(ends) > now then
        local fence = grant(token, {CLAIM_MS}, 0, now)
        if redis.call('PUBLISH', channel, token) > 0 then
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

# ARGV: token, lease_ms, floor, channel, wait_ms (0: do not queue).
# Gives {fence} if the key is held by the token, {} if not. May be repeated with the same token.
_ACQUIRE = """
local token, lease_ms, floor = ARGV[1], ARGV[2], tonumber(ARGV[3])
local channel, wait_ms = ARGV[4], tonumber(ARGV[5])
local owner = redis.call('GET', owner_key)
if owner then
  local holder, fence = split(owner)
  if holder == token then
    if tonumber(fence) <= floor then
      fence = grant(token, lease_ms, floor, now_us())
    else
      redis.call('PEXPIRE', owner_key, lease_ms)
    end
    return {fence}
  end
else
  local now = now_us()
  if serve_next(token, now) then
    return {grant(token, lease_ms, floor, now)}
  end
end
if wait_ms > 0 then
  local ends = string.format('%.0f', now_us() + wait_ms * 1000)
  if redis.call('HSET', waiters_key, token, channel .. '|' .. ends) == 1 then
    redis.call('RPUSH', queue_key, token)
  end
  local keep_ms = wait_ms + @SLACK@
  if redis.call('PTTL', queue_key) < keep_ms then
    redis.call('PEXPIRE', queue_key, keep_ms)
    redis.call('PEXPIRE', waiters_key, keep_ms)
  end
end
return {}
""".replace("@SLACK@", str(QUEUE_SLACK_MS))

# ARGV: token. Ends a holding (the next waiter is served) or a waiting. Gives 1 if it was held.
_RELEASE = """
local token = ARGV[1]
local owner = redis.call('GET', owner_key)
if owner and split(owner) == token then
  redis.call('DEL', owner_key)
  serve_next('', now_us())
  return 1
end
if redis.call('HDEL', waiters_key, token) == 1 then
  redis.call('LREM', queue_key, 1, token)
end
return 0
"""

# ARGV: token, lease_ms. Gives 1 if the token holds the key, now for lease_ms again.
_RENEW = f"""
local owner = redis.call('GET', owner_key)
if owner and split(owner) == ARGV[1] then
  redis.call('PEXPIRE', owner_key, ARGV[2])
  redis.call('EXPIRE', fence_key, {FENCE_TTL_S})
  return 1
end
return 0
"""


@dataclass(frozen=True)
class Script:
    """A script and the name by which Redis caches it (SCRIPT LOAD)."""

    text: str
    sha: str


def _script(text: str) -> Script:
    whole = _COMMON + text
    return Script(whole, hashlib.sha1(whole.encode("utf-8"), usedforsecurity=False).hexdigest())


ACQUIRE = _script(_ACQUIRE)
RELEASE = _script(_RELEASE)
RENEW = _script(_RENEW)


def lock_keys(key: str) -> list[str]:
    """The four Redis keys of a lock's key, in the scripts' order."""
    return [f"lease:{{{key}}}:{part}" for part in ("owner", "fence", "queue", "waiters")]

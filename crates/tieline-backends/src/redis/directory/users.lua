-- Which nodes of a cluster hold which users. Each node has a hash of its users, with the numbers of its claims, and a set of the
-- users whose whereabouts it remembers; both live as long as its lease. The field '' of the hash is always there.
--
-- KEYS[1]  a hash of the nodes that have put all their users here, each with the run of the server in which it did so
-- KEYS[2]  this node's users
-- KEYS[3]  whom it remembers
-- ARGV[1]  what the names of all keys begin with
-- ARGV[2]  this node, as 16 digits
-- ARGV[3]  the present run of the server, as this node knows it
-- ARGV[4]  milliseconds of a lease
-- ARGV[5]  `enter` with no users, `put` one of them here, be `ready`, `stay`, or `leave`; then `claim` a user with a number above
--          all, or `keep` it with its own, `release` it, `look` where it is and remember that, or `forget` it
-- ARGV[6]  the user
-- ARGV[7]  the number of the claim
--
-- Answers 'unknown' where this node's users are not here. Otherwise the number that its claim has now, and the other nodes that are
-- ready, each with what is asked of it: for a look the number of its claim, else whether it remembers the user (1); or 0.

local nodes, users, remembered = KEYS[1], KEYS[2], KEYS[3]
local prefix, me, run, lease, act, what, number =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])

if act == 'enter' or act == 'leave' then
  redis.call('HDEL', nodes, me)
  redis.call('UNLINK', users, remembered)
  if act == 'enter' then
    redis.call('HSET', users, '', '1')
    redis.call('PEXPIRE', users, lease)
  end
  return { '0' }
end
if redis.call('EXISTS', users) == 0 then
  return { 'unknown' }
end
if act == 'put' then
  redis.call('HSET', users, what, ARGV[7])
  -- Many users take a while.
  redis.call('PEXPIRE', users, lease)
  return { '0' }
end
if act == 'ready' then
  redis.call('HSET', nodes, me, run)
  act = 'stay'
end
if redis.call('HGET', nodes, me) ~= run then
  return { 'unknown' }
end
if act == 'stay' then
  redis.call('PEXPIRE', users, lease)
  redis.call('PEXPIRE', remembered, lease)
  -- When everybody is gone nothing stays behind.
  redis.call('PEXPIRE', nodes, lease)
  return { '0' }
end
if act == 'forget' then
  redis.call('SREM', remembered, what)
  return { '0' }
end

local answer = { '0' }
local newest, newest_at = 0, ''
local listed = redis.call('HGETALL', nodes)
for i = 1, #listed, 2 do
  local node = listed[i]
  if node ~= me then
    local found = redis.call('HMGET', prefix .. '/users/' .. node, '', what)
    if not found[1] then
      -- Its lease is over.
      redis.call('HDEL', nodes, node)
    elseif listed[i + 1] == run then
      local claim = tonumber(found[2] or '0')
      if claim > newest or (claim == newest and node > newest_at) then
        newest, newest_at = claim, node
      end
      answer[#answer + 1] = node
      if act == 'look' then
        answer[#answer + 1] = found[2] or '0'
      else
        answer[#answer + 1] = tostring(redis.call('SISMEMBER', prefix .. '/remembered/' .. node, what))
      end
    end
  end
end
if act == 'look' then
  redis.call('SADD', remembered, what)
  redis.call('PEXPIRE', remembered, lease)
elseif act == 'release' then
  redis.call('HDEL', users, what)
else
  if act == 'claim' and newest > 0 then
    -- Who is the newest already needs no higher number.
    local own = tonumber(redis.call('HGET', users, what) or '0')
    local is_newest = own > newest or (own == newest and me > newest_at)
    number = is_newest and math.max(number, own) or math.max(number, newest + 1)
  end
  answer[1] = string.format('%.0f', number)
  redis.call('HSET', users, what, answer[1])
end
return answer

-- The nodes of a cluster: one hash. A field is a node's id, its value until when its lease runs and what it says of itself,
-- with a blank between; the field `version` changes with everything else.
--
-- KEYS[1]  the hash
-- ARGV[1]  the node that asks, or nothing
-- ARGV[2]  `look`, `stay` (and say that it lives) or `leave`
-- ARGV[3]  what it says of itself
-- ARGV[4]  milliseconds of a lease
-- ARGV[5]  the version that it knows
--
-- Answers whether the node was there (1 or 0), the version, how many entries are too long or too many to be shown, and, where the
-- version is news, the entries: id and words in turn.

local LONGEST, MOST = 4096, 1100
local key, me, act, words, lease, known = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = redis.call('HGETALL', key)
local version, was_there, is_news, hidden = false, 0, false, 0
local shown = {}

for i = 1, #all, 2 do
  local id, value = all[i], all[i + 1]
  if id == 'version' then
    version = value
  else
    local ends, said = string.match(value, '^(%d+) (.*)$')
    ends = tonumber(ends)
    -- A lease far in the future is from before the server's clock was set back.
    if ends and (ends <= now or ends > now + 4 * lease) then
      redis.call('HDEL', key, id)
      is_news = true
    elseif id == me then
      was_there = 1
      if act == 'leave' then
        redis.call('HDEL', key, id)
        is_news = true
      elseif act == 'stay' and said ~= words then
        is_news = true
      elseif act == 'look' then
        shown[#shown + 1] = id
        shown[#shown + 1] = said or value
      end
    elseif #value > LONGEST or #shown >= 2 * MOST then
      hidden = hidden + 1
    else
      shown[#shown + 1] = id
      shown[#shown + 1] = said or value
    end
  end
end
if act == 'stay' then
  redis.call('HSET', key, me, string.format('%.0f %s', now + lease, words))
  is_news = is_news or was_there == 0
  shown[#shown + 1] = me
  shown[#shown + 1] = words
end
if is_news or (not version and #shown > 0) then
  if version then
    version = redis.call('HINCRBY', key, 'version', 1)
  else
    -- Later than any version before it, should the server have lost that one.
    version = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('HSET', key, 'version', version)
  end
end
if act == 'stay' then
  -- When everybody is gone nothing stays behind.
  redis.call('PEXPIRE', key, lease)
end
version = tostring(version or '0')
local answer = { was_there, version, hidden }
if version ~= known then
  for i = 1, #shown do
    answer[#answer + 1] = shown[i]
  end
end
return answer

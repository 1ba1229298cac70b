-- Records in the order of their keys.
--
-- KEYS: the index of records. ARGV: prefix, the least key and the end in the words of ZRANGEBYLEX, records and bytes at most,
-- where one record is given in any case. Answers: the last key that was looked at, or nothing when there are no more; then keys and
-- records in turn.

local BATCH = 128
local keys = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], ARGV[3], 'LIMIT', 0, BATCH)
local most, room = tonumber(ARGV[4]), tonumber(ARGV[5])
local list, is_whole = { false }, true
for _, key in ipairs(keys) do
  if most == 0 or room <= 0 then
    is_whole = false
    break
  end
  list[1] = key
  -- One whose life is over is in the index until it is swept.
  local record = redis.call('GET', ARGV[1] .. ':record:{' .. key .. '}')
  if record then
    most, room = most - 1, room - #record
    list[#list + 1], list[#list + 2] = key, record
  end
end
if is_whole and #keys < BATCH then list[1] = false end
return list

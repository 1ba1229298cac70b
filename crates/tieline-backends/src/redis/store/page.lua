-- A part of a log at one moment.
--
-- KEYS: the log, its messages. ARGV: the epoch and the offset behind which it begins, or nothing twice; messages and bytes of
-- them at most, where one message is given in any case. Answers: epoch, first, last, life, and the messages; nothing when there is no log.

local text = redis.call('GET', KEYS[1])
if not text then return false end
local epoch, first, last, swept, bytes, life = string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) ')
epoch, first, last, swept, bytes = tonumber(epoch), tonumber(first), tonumber(last), tonumber(swept), tonumber(bytes)
local page = { epoch, first, last, tonumber(life) }
local start = first
if ARGV[1] ~= '' then
  if tonumber(ARGV[1]) ~= epoch then return page end
  start = tonumber(ARGV[2]) + 1
end
if start < first or start > last then return page end
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
-- So many at once as are likely to fit.
local step = math.max(1, math.min(64, most, math.floor(room * (last + 1 - swept) / math.max(bytes, 1))))
local at, is_first = start - swept, true
while most > 0 and at <= last - swept do
  local part = redis.call('LRANGE', KEYS[2], string.format('%.0f', at), string.format('%.0f', at + math.min(step, most) - 1))
  if #part == 0 then break end
  for _, message in ipairs(part) do
    room = room - #message + 16
    if room < 0 and not is_first then return page end
    is_first = false
    page[#page + 1] = message
  end
  at, most = at + #part, most - #part
end
return page

-- One batch of changes, in their order. The server runs it as a whole, and writes all of it into its append-only file as one
-- transaction, so after any death there is all of a batch or nothing.
--
-- KEYS: the store, the index of logs by when they want sweeping, the index of records, the index of their ends.
-- ARGV: prefix, the store's id, milliseconds until a log's old keys of appends are looked at, the first of the batch's fresh
-- epochs; then the requests, each a letter and its words. Answers: the slot, and one answer for each request, a text where
-- the request failed.

local store, due, index, ends = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, epoch, window = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[3])
local call = redis.call

-- Of one sweep: logs and records that it looks at, and messages that it takes away.
local SWEPT_LOGS, SWEPT_RECORDS, SWEPT_MESSAGES = 64, 128, 512
-- Messages of a log that an append may take away beside twice its own, and bytes.
local SLICE, SLICE_BYTES = 16, 4194304

local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local facts = call('HMGET', store, 'id', 'slot')
if not facts[1] then
  -- Everything was removed under the handle. What is made now has other epochs, so nothing is mistaken.
  call('HSET', store, 'id', ARGV[2], 'layout', 1, 'slot', 1)
  facts[2] = 1
elseif facts[1] ~= ARGV[2] then
  return redis.error_reply('OTHERSTORE another store is kept there now')
end
local slot = tonumber(facts[2])

local function messages_of(name) return prefix .. ':messages:{' .. name .. '}' end
local function log_of(name) return prefix .. ':log:{' .. name .. '}' end
local function seen_of(name, number) return string.format('%s:seen:%.0f:{', prefix, number) .. name .. '}' end

local function time_of(message)
  local a, b, c, d, e, f = string.byte(message, 1, 6)
  return ((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f
end

local FIELDS = { 'epoch', 'first', 'last', 'swept', 'bytes', 'life', 'oldest', 'newest', 'count', 'keep', 'age', 'seen', 'before', 'due' }
local FORMAT = string.rep('%.0f ', #FIELDS)
local logs = {}

-- The log of this name, false when there is none.
local function find(name)
  local log = logs[name]
  if log == nil then
    local text = call('GET', log_of(name))
    log = false
    if text then
      log = {}
      local field = 0
      for number in string.gmatch(text, '%d+') do
        field = field + 1
        log[FIELDS[field]] = tonumber(number)
      end
      if field ~= #FIELDS then error('DAMAGED a log is described otherwise', 0) end
    end
    logs[name] = log
  end
  return log
end

-- Begins a life of a log. Lives are counted over all logs, so that a later one is told from one that came back with an older
-- copy of the server's files.
local function renew(log)
  log.life = call('HINCRBY', store, 'lives', 1)
  epoch = epoch + 1
  log.epoch, log.is_changed = epoch, true
end

-- Keys of appends are looked for in the present slot and the one before; of older slots they are forgotten.
local function forget_seen(name, log)
  if log.before > 0 and log.before < slot - 1 then
    call('UNLINK', seen_of(name, log.before))
    log.before, log.is_changed = 0, true
  end
  if log.seen > 0 and log.seen < slot - 1 then
    call('UNLINK', seen_of(name, log.seen))
    log.seen, log.is_changed = 0, true
  end
end

local function remove(name, log)
  call('UNLINK', log_of(name), messages_of(name), seen_of(name, log.seen), seen_of(name, log.before))
  call('ZREM', due, name)
  logs[name] = false
end

-- Takes at most so many messages from the log's old end: those that are cut off, and those past its retention.
local function trim(name, log, most)
  local key, room = messages_of(name), SLICE_BYTES
  while most > 0 and room > 0 and log.swept <= log.last do
    local is_cut = log.swept < log.first
    local length = log.last + 1 - log.first
    if not is_cut and not (length > 1 and (length > log.count or log.bytes > log.keep)) then
      if log.oldest == 0 and (log.due <= now or log.looks) then
        local oldest = call('LINDEX', key, 0)
        if not oldest then error('DAMAGED a log lacks its messages', 0) end
        log.oldest = time_of(oldest)
      end
      if log.oldest == 0 or log.oldest + log.age > now then break end
    end
    local message = call('LPOP', key)
    if not message then error('DAMAGED a log lacks its messages', 0) end
    most, room = most - 1, room - #message
    log.bytes, log.swept, log.oldest, log.is_changed = log.bytes - #message + 16, log.swept + 1, 0, true
    if not is_cut then log.first = log.swept end
  end
  return most
end

-- Writes a log that was changed, and when it wants to be looked at.
local function keep(name, log, is_sweep)
  local when = log.due
  if log.swept < log.first then
    when = now
  elseif log.swept > log.last then
    when = log.newest + 2 * log.age + 1
  elseif log.oldest > 0 then
    when = log.oldest + log.age
  elseif is_sweep then
    when = now
  end
  if log.seen > 0 or log.before > 0 then when = math.min(when, now + window) end
  if log.due == 0 or when < log.due or (is_sweep and when ~= log.due) then
    log.due, log.is_changed = when, true
    call('ZADD', due, when, name)
  end
  if log.is_changed then
    local values = {}
    for field = 1, #FIELDS do values[field] = log[FIELDS[field]] end
    call('SET', log_of(name), string.format(FORMAT, unpack(values)))
    log.is_changed = false
  end
end

local requests = {}

-- Appends a message: name, key, message, and what the log keeps.
function requests.a(at)
  local name, key, message = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local log = find(name)
  if log then
    forget_seen(name, log)
    local offset = log.seen > 0 and call('HGET', seen_of(name, log.seen), key)
      or log.before > 0 and call('HGET', seen_of(name, log.before), key)
    if offset then return { log.epoch, tonumber(offset), 1, log.life } end
  else
    log = { first = 1, last = 0, swept = 1, bytes = 0, oldest = 0, newest = 0, seen = slot, before = 0, due = 0 }
    renew(log)
    call('UNLINK', messages_of(name), seen_of(name, slot), seen_of(name, slot - 1))
  end
  local length = call('RPUSH', messages_of(name), message)
  if length ~= log.last + 2 - log.swept then
    call('RPOP', messages_of(name))
    error('DAMAGED a log lacks its messages', 0)
  end
  logs[name] = log
  if log.seen ~= slot then log.before, log.seen = log.seen, slot end
  local sent, age = time_of(message), tonumber(ARGV[at + 5])
  if log.swept > log.last then log.oldest = sent end
  log.last, log.bytes, log.newest = log.last + 1, log.bytes + #message - 16, math.max(log.newest, sent)
  log.looks = log.looks or log.age ~= age
  log.count, log.keep, log.age = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), age
  log.appended, log.is_changed = (log.appended or 0) + 1, true
  call('HSET', seen_of(name, slot), key, string.format('%.0f', log.last))
  return { log.epoch, log.last, 0, log.life }
end

-- Cuts off what is up to an offset: name, epoch, offset.
function requests.t(at)
  local log = find(ARGV[at])
  if log and log.epoch == tonumber(ARGV[at + 1]) then
    local first = math.min(tonumber(ARGV[at + 2]), log.last) + 1
    if first > log.first then
      log.first, log.oldest, log.is_changed = first, 0, true
      if first > log.last then
        call('UNLINK', messages_of(ARGV[at]))
        log.swept, log.bytes = first, 0
      end
    end
  end
  return 0
end

-- Removes a log: name.
function requests.d(at)
  local log = find(ARGV[at])
  if log then remove(ARGV[at], log) end
  return 0
end

-- Gives a log a new epoch: name, the epoch that it must have.
function requests.r(at)
  local log = find(ARGV[at])
  if not log then return 0 end
  if log.epoch == tonumber(ARGV[at + 1]) then renew(log) end
  return { log.epoch, log.first, log.last }
end

-- Gives a log a new epoch if it has lost a message, or is an earlier life than was known: name, epoch, life, and offset and id of
-- the message.
function requests.v(at)
  local log, life, offset = find(ARGV[at]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  if not log or log.life > life then return 0 end
  if log.epoch == tonumber(ARGV[at + 1]) and offset <= log.last then
    if offset < log.swept then return 0 end
    local message = call('LINDEX', messages_of(ARGV[at]), string.format('%.0f', offset - log.swept))
    if message and string.sub(message, 1, 16) == ARGV[at + 4] then return 0 end
  end
  -- The count may have come back as well. All that know the lost life shall see that this one is later.
  if life > tonumber(call('HGET', store, 'lives') or 0) then call('HSET', store, 'lives', life) end
  renew(log)
  return 1
end

-- Changes a record: key, what it must be (`*`, nothing, or a version), what it becomes (a version and a value, or nothing), and
-- for how many milliseconds (or nothing, for ever).
function requests.c(at)
  local name, expect, value, lives = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local key = prefix .. ':record:{' .. name .. '}'
  if expect ~= '*' then
    local found = call('GET', key)
    if expect ~= (found and string.sub(found, 1, 8) or '') then return { 0, found } end
  end
  if value == '' or lives == '0' then
    call('UNLINK', key)
    call('ZREM', index, name)
    call('ZREM', ends, name)
  elseif lives == '' then
    call('SET', key, value)
    call('ZADD', index, 0, name)
    call('ZREM', ends, name)
  else
    local over = string.format('%.0f', now + tonumber(lives))
    call('SET', key, value, 'PXAT', over)
    call('ZADD', index, 0, name)
    call('ZADD', ends, over, name)
  end
  return { 1 }
end

-- Begins a new slot of keys if this is the present one: its number.
function requests.w(at)
  if tonumber(ARGV[at]) == slot then slot = call('HINCRBY', store, 'slot', 1) end
  return 0
end

-- Takes away a part of what nobody needs: nothing more. Whether there may be more.
function requests.s()
  local left, found = SWEPT_MESSAGES, call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, SWEPT_LOGS)
  local is_more = #found == SWEPT_LOGS
  for _, name in ipairs(found) do
    if left == 0 then break end
    local is_sound, fault = pcall(function()
      local log = find(name)
      if not log then return call('ZREM', due, name) end
      log.looks = true
      forget_seen(name, log)
      left = trim(name, log, left)
      if log.swept > log.last and log.newest + 2 * log.age < now then return remove(name, log) end
      keep(name, log, true)
    end)
    if not is_sound then
      -- A log that is damaged is left for whoever asks for it. Where the server has no room, the next sweep comes back.
      if string.find(tostring(fault), 'DAMAGED', 1, true) then call('ZREM', due, name) end
      logs[name] = nil
    end
  end
  local over = call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, SWEPT_RECORDS)
  for _, name in ipairs(over) do
    if call('EXISTS', prefix .. ':record:{' .. name .. '}') == 0 then
      call('ZREM', index, name)
      call('ZREM', ends, name)
    end
  end
  return (is_more or left == 0 or #over == SWEPT_RECORDS) and 1 or 0
end

local WORDS = { a = 6, t = 3, d = 1, r = 2, v = 5, c = 4, w = 1, s = 0 }
local answers = { 0 }
local at = 5
while at <= #ARGV do
  local letter = ARGV[at]
  local is_done, answer = pcall(requests[letter], at + 1)
  if not is_done then answer = type(answer) == 'table' and answer.err or tostring(answer) end
  answers[#answers + 1] = answer
  at = at + 1 + WORDS[letter]
end
for name, log in pairs(logs) do
  if log and log.is_changed then
    pcall(trim, name, log, 2 * (log.appended or 0) + SLICE)
    keep(name, log, false)
  end
end
answers[1] = slot
return answers

-- A Wireshark dissector of captures of winvm's channel (docs/protocol.md, "Captures").
-- Written by `serialdbg dissector`; put it into Wireshark's folder of personal plugins, or
-- give it to tshark with -X lua_script:winvm.lua.

local winvm = Proto("winvm", "winvm channel")

local ops = {--[[OPS]]}
local resyncs = {"SYN", "ACK", "GO", "REFUSE", "HELLO"}
local records = {"data", "close", "bulk"}
local MAGIC = "\xf7winvm-resync\r\n\0"

local f = {
  from = ProtoField.string("winvm.from", "Written by"),
  link = ProtoField.uint32("winvm.link", "Link"),
  offset = ProtoField.uint64("winvm.offset", "Offset"),
  missing = ProtoField.bool("winvm.missing", "Bytes before are missing"),
  ended = ProtoField.bool("winvm.end", "The link has ended"),
  resync = ProtoField.string("winvm.resync", "Resync"),
  build = ProtoField.string("winvm.build", "Build"),
  padding = ProtoField.uint32("winvm.padding", "Padding, bytes"),
  garbage = ProtoField.uint32("winvm.garbage", "Garbage, bytes"),
  record = ProtoField.string("winvm.record", "Record"),
  epoch = ProtoField.uint32("winvm.epoch", "Epoch", base.HEX),
  seq = ProtoField.uint32("winvm.seq", "Sequence number"),
  stream = ProtoField.uint32("winvm.stream", "Stream"),
  name = ProtoField.string("winvm.name", "Name of the stream"),
  bytes = ProtoField.uint32("winvm.bytes", "Bytes of the stream"),
  kind = ProtoField.string("winvm.kind", "Request or response"),
  op = ProtoField.string("winvm.op", "Operation"),
  tag = ProtoField.uint32("winvm.tag", "Tag"),
  length = ProtoField.uint32("winvm.length", "Length of the body"),
  errno = ProtoField.uint16("winvm.errno", "Errno"),
}
winvm.fields = {
  f.from, f.link, f.offset, f.missing, f.ended, f.resync, f.build, f.padding, f.garbage, f.record, f.epoch,
  f.seq, f.stream, f.name, f.bytes, f.kind, f.op, f.tag, f.length, f.errno,
}

-- What is known of each direction of each link, and what each packet has completed. Packets
-- are taken in order once; later they are only shown.
local ways, streams, shown

function winvm.init()
  ways, streams, shown = {}, {}, {}
end

local function be32(s, at) local a, b, c, d = s:byte(at, at + 3); return ((a * 256 + b) * 256 + c) * 256 + d end
local function le32(s, at) local a, b, c, d = s:byte(at, at + 3); return ((d * 256 + c) * 256 + b) * 256 + a end
local function be16(s, at) local a, b = s:byte(at, at + 1); return a * 256 + b end
local function le16(s, at) local a, b = s:byte(at, at + 1); return b * 256 + a end

-- rpc takes requests and responses out of a stream's bytes.
local function rpc(st, side, data, out)
  local d = st[side]
  if d.skip > 0 then
    local n = math.min(d.skip, #data)
    d.skip, data = d.skip - n, data:sub(n + 1)
  end
  d.part = d.part .. data
  while #d.part >= 12 do
    local length, tag, op, last = le32(d.part, 1), le32(d.part, 5), le16(d.part, 9), le16(d.part, 11)
    local request, body, front = side == "guest", length, 12
    if not ops[op] or length > 0x101000 then
      d.part = "" -- not the beginning of a frame: look again with the next piece
      return
    end
    if request and last ~= 0 then front = 20 end
    if not request and last == 0x8000 then body = 0 end
    if #d.part < front then return end
    out[#out + 1] = {kind = request and "request" or "response", op = ops[op], tag = tag, length = length,
      errno = (not request and last ~= 0x8000) and last or 0}
    local rest = #d.part - front
    if rest >= body then
      d.part = d.part:sub(front + body + 1)
    else
      d.skip, d.part = body - rest, ""
    end
  end
end

-- frame takes apart what a record carries.
local function frame(way, r, payload)
  local typ, flags, stream = payload:byte(2), be16(payload, 3), be32(payload, 5)
  local data = payload:sub(13)
  r.stream, r.bytes, r.calls = stream, #data, {}
  local key = table.concat({way.link, r.epoch, r.typ, stream}, "/")
  local st = streams[key]
  if not st then
    st = {host = {skip = 0, part = ""}, guest = {skip = 0, part = ""}}
    streams[key] = st
    if r.typ == 3 and flags % 2 == 1 then st.name, data = data, "" end
    if r.typ == 1 and flags % 2 == 1 then st.unnamed = way.side end
  end
  if typ == 0 and st.unnamed == way.side and #data > 0 then
    local n = data:byte(1)
    st.name, st.unnamed = data:sub(2, 1 + n), nil
    data = data:sub(2 + n)
  end
  r.name = st.name
  if typ == 0 and #data > 0 and r.typ == 3 then rpc(st, way.side, data, r.calls) end
end

-- take takes what is complete off a direction's bytes.
local function take(way)
  local out, buf, at = {}, way.buf, 1
  local garbage = 0
  local function flush()
    if garbage > 0 then out[#out + 1] = {garbage = garbage} end
    garbage = 0
  end
  while at <= #buf do
    local first, left = buf:byte(at), #buf - at + 1
    if first == 0 then
      local stop = buf:find("[^\0]", at) or #buf + 1
      flush()
      out[#out + 1] = {padding = stop - at}
      at = stop
    elseif first == 0xf7 and buf:sub(at, at + math.min(left, 16) - 1) == MAGIC:sub(1, math.min(left, 16)) then
      if left < 128 then break end
      flush()
      out[#out + 1] = {resync = resyncs[buf:byte(at + 16)] or "?", build = buf:sub(at + 64, at + 95):match("^[^\0]*")}
      way.epoch = nil
      at = at + 128
    elseif first <= 3 then
      if left < 16 then break end
      local length, epoch = be32(buf, at) % 0x1000000, be32(buf, at + 4)
      local ok = (first == 2 and length == 0 or first ~= 2 and length >= 12 and length <= 65512) and (not way.epoch or way.epoch == epoch)
      if ok and left < length + 24 then break end
      if ok then
        flush()
        local r = {typ = first, record = records[first], epoch = epoch, seq = be32(buf, at + 8)}
        way.epoch = epoch
        if first ~= 2 then frame(way, r, buf:sub(at + 16, at + 15 + length)) end
        out[#out + 1] = r
        at = at + length + 24
      else
        garbage, at = garbage + 1, at + 1
      end
    else
      garbage, at = garbage + 1, at + 1
    end
  end
  flush()
  way.buf = buf:sub(at)
  return out
end

local function show(tree, r)
  if r.padding then tree:add(f.padding, r.padding):set_generated() return "padding" end
  if r.garbage then
    tree:add(f.garbage, r.garbage):set_generated()
    return "garbage"
  end
  if r.resync then
    local t = tree:add(f.resync, r.resync):set_generated()
    t:add(f.build, r.build):set_generated()
    return r.resync
  end
  local t = tree:add(f.record, r.record):set_generated()
  t:add(f.epoch, r.epoch):set_generated()
  t:add(f.seq, r.seq):set_generated()
  if not r.stream then return r.record end
  t:add(f.stream, r.stream):set_generated()
  t:add(f.bytes, r.bytes):set_generated()
  if r.name then t:add(f.name, r.name):set_generated() end
  local text = (r.name or r.record .. ":" .. r.stream)
  for _, c in ipairs(r.calls) do
    local k = t:add(f.kind, c.kind):set_generated()
    k:add(f.op, c.op):set_generated()
    k:add(f.tag, c.tag):set_generated()
    k:add(f.length, c.length):set_generated()
    if c.errno ~= 0 then k:add(f.errno, c.errno):set_generated() end
    text = text .. " " .. c.op .. (c.kind == "response" and "=" or "") .. "#" .. c.tag
  end
  return text
end

function winvm.dissector(tvb, pinfo, tree)
  if tvb:len() < 16 or tvb(0, 2):string() ~= "wv" or tvb(2, 1):uint() ~= 1 then return 0 end
  local flags, link = tvb(3, 1):uint(), tvb(4, 4):uint()
  local side = flags % 2 == 1 and "guest" or "host"
  local missing, ended = math.floor(flags / 2) % 2 == 1, math.floor(flags / 4) % 2 == 1
  local t = tree:add(winvm, tvb())
  t:add(f.from, tvb(3, 1), side)
  t:add(f.missing, tvb(3, 1), missing)
  t:add(f.ended, tvb(3, 1), ended)
  t:add(f.link, tvb(4, 4))
  t:add(f.offset, tvb(8, 8))
  if not pinfo.visited then
    local key = link .. side
    local offset = tvb(8, 8):uint64():tonumber()
    local way = ways[key] or {link = link, side = side, buf = "", next = offset}
    ways[key] = way
    if missing or offset ~= way.next then way.buf, way.epoch = "", nil end
    way.next = offset + tvb:len() - 16
    if tvb:len() > 16 then way.buf = way.buf .. tvb:raw(16) end
    shown[pinfo.number] = take(way)
  end
  pinfo.cols.protocol = "winvm"
  pinfo.cols.src, pinfo.cols.dst = side, side == "host" and "guest" or "host"
  local info = {}
  for _, r in ipairs(shown[pinfo.number] or {}) do info[#info + 1] = show(t, r) end
  if ended then info[#info + 1] = "end of the link" end
  pinfo.cols.info = table.concat(info, ", ")
  return tvb:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, winvm)

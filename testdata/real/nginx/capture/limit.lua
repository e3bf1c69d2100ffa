local n = 0
local paths = { "/", "/docs/page1.txt", "/docs/page4.txt", "/api/orders", "/missing", "/old" }
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
response = function() n = n + 1; if n >= 250 then wrk.thread:stop() end end

-- A question that nobody waits for any more asks for nothing: what it was granted would lie idle until its window is
-- over. A server that hung answers such questions when it goes on. What they give back and owe is booked as ever.
--
-- ARGV[#ARGV - 2]: until when it is waited for, by the server's clock; or ''.
local due = ARGV[#ARGV - 2]
if ARGV[1] == 'grant' and due ~= '' and clock > tonumber(due) then
  ARGV[18], ARGV[19], ARGV[20] = '0', '0', '0'
end


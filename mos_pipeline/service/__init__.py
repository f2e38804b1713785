"""The owner of a store answers others on a socket in its folder.

protocol.py  messages, limits, what may be asked     wire.py    values to plain data and back
address.py   the socket's place, however long its path is
server.py    the owner's side, a thread of its own   client.py  the other side: MemoryPipeline's methods once more
streaming.py answers piece by piece, on that side
"""

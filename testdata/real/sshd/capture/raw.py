import socket, sys
for text in sys.argv[2:]:
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1]))); s.settimeout(1)
    s.sendall(text.encode("latin1").decode("unicode_escape").encode("latin1"))
    try: s.recv(300)
    except OSError: pass
    s.close()

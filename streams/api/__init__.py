"""The HTTP interface: routers over readers and clients that are given to it. No rule about money lives here."""

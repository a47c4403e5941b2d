"""The same job on what a user would pick instead, each in a process of its own.

The *small job* (`job`) has three detectors of river's definitions a customer, and one right answer: every peer must
give the same firings and, bit for bit, the same final states. The *whole job* is everything that Stayline does with a
call, written the natural way.

Each peer is a module: `python -m bench.peers.NAME EVENTS OUT` reads a file of calls, writes what it found to OUT and
prints one line of JSON. `python -m bench.peers.race` runs them one after the other on one core and makes the table.

What `make setup` does not install:

* Quix Streams, Pathway and PyFlink need environments of their own: `make peers` makes them, `make bench-all` uses them,
  and by hand the race is told their interpreters, separated by a colon. A peer runs in the first that has its library.

      export P=$PWD/build/peers
      STAYLINE_PEERS_PYTHON=$P/streams/bin/python:$P/flink/bin/python stayline bench peers

* Flink needs a JDK and Maven on the PATH; the first race fetches the jars into the user's cache.
* Quix Streams reads from Kafka: the race starts a broker on the other cores, of jars that Maven fetches too.

A peer that lacks something says so in one sentence and is listed as "not here".
"""

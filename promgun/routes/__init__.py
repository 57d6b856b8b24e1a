"""How each framework names the route of a request: one file a framework, and ``sources``, the table of them.

A framework's file says which method of the framework's class to hook, in this process, and the statement that reports
what was matched off its call: the template, or the empty string where nothing was. ``reporting`` makes the hook of it,
and is where an error of a hook ends; ``mounts`` reports that a request enters a mount.

A hook finds the request that is being counted by two keys of the WSGI ``environ`` or the ASGI ``scope``:

``promgun.report_route`` (``REPORT``)
    The state of the request, whose method ``route_known`` takes the template. The worker puts it there before it calls
    the application; a mount puts an object in its place that writes its own template in front. An ``environ`` or
    ``scope`` without it belongs to no request of the server, such as one of a test client inside a request. A hook does
    itself what ``route_known`` does for a state that has a ``region`` and no route, which is the case of nearly every
    request.
``promgun.route`` (``ROUTE``)
    The application's own name of the route, which overrides what was reported. It is read when the answer is counted.

What a worker has to do (``workers/_accounting.py`` does it for WSGI)::

    sources = RouteSources(patterns, log.warning)     # before the application is loaded
    sources.install()                                 # once it is loaded, and once a second: a look at sys.modules
    if sources.active:                                # a request, before the application is called
        scope[REPORT] = state
    route = scope.get(ROUTE)                          # when the answer is counted, else what was reported

``route_known`` may be called any number of times and from any thread, until the answer is counted: the last call is
right. Frameworks keep the same ``scope`` object from the server to the view, or copy it; a value that the application
sets in a copy is not seen.
"""

# The networks of a program: runs in the plugin's own namespace of the program's interpreter
# (src/attach/python_modules.cpp).
#
# _look(address) gives the class of the network that the leaf at `address` is in, its parameters as a list of (parameter,
# layer, kind, name, sequence first), and its buffers with their names. It keeps a weak reference to the network in
# `_networks`. A module's class is the first of torch.nn that it descends from. One of the user's own is a layer if it has a
# single weight; the parameters of others are layers by themselves. What a weight is computed from
# (torch.nn.utils.parametrizations) belongs to the layer that has the weight.
_networks = []
def _look(address):
    import gc, sys, weakref
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    Module = getattr(nn, "Module", None)
    if Module is None:
        return "", [], []
    modules = [m for m in gc.get_objects() if issubclass(type(m), Module) and "_modules" in m.__dict__]
    parents, owner = {}, None
    for module in modules:
        for child in module._modules.values():
            if child is not None and child is not module:
                parents.setdefault(id(child), module)
        for parameter in module._parameters.values():
            if owner is None and parameter is not None and parameter._cdata == address:
                owner = module
    if owner is None:
        return "", [], []
    root, seen = owner, set()
    while id(root) in parents and id(root) not in seen:
        seen.add(id(root))
        root = parents[id(root)]
    found, buffers, above = [], [], set()
    def below(path, name):
        return path + "." + name if path else name
    def walk(module, path, sequence_first, computed=None):
        if id(module) in above:
            return
        above.add(id(module))
        kind = ""
        for base in type(module).__mro__:
            public = getattr(nn, base.__name__, None) is base and base.__module__.startswith("torch.nn.modules.")
            if public and base is not Module and not base.__module__.endswith(".container"):
                kind = base.__name__
                break
        sequence_first = sequence_first or kind in ("MultiheadAttention",) or kind.startswith("Transformer")
        own = [(name, p) for name, p in module._parameters.items() if p is not None]
        if kind == "MultiheadAttention" or (not kind and sum(p.dim() > 1 for _, p in own) > 1):
            layer = None
        else:
            layer = path or "(root)"
            kind = kind or type(module).__name__
        if computed:
            layer, kind = computed
        for name, p in own:
            full = below(path, name)
            found.append((p, layer or full, kind if layer else "Raw", full, sequence_first))
        buffers.extend((b, below(path, name)) for name, b in module._buffers.items() if b is not None)
        for name, child in module._modules.items():
            if child is not None:
                of_layer = computed or (layer and name == "parametrizations" and (layer, kind))
                walk(child, below(path, name), sequence_first, of_layer)
        above.discard(id(module))
    walk(root, "", False)
    if not any(known() is root for known in _networks):
        _networks.append(weakref.ref(root))
    return type(root).__name__, found, buffers

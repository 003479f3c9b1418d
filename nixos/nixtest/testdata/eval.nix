# A small stand-in of nixpkgs' lib: as much of its modules as module.nix uses.
{ module, config }:
let
  check = { name, ok }: { inherit name ok; };
  types = {
    bool = check { name = "boolean"; ok = builtins.isBool; };
    str = check { name = "string"; ok = builtins.isString; };
    package = check { name = "package"; ok = x: builtins.isString x || x ? outPath; };
    nullOr = t: check { name = "null or ${t.name}"; ok = x: x == null || t.ok x; };
  };
  lib = {
    inherit types;
    mkOption = o: o // { _option = true; };
    mkEnableOption = what: lib.mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
    mkIf = condition: content: { _if = condition; inherit content; };
    mkMerge = contents: { _merge = contents; };
  };
  evaluated = import module { inherit lib; config = values; };

  isSet = x: builtins.isAttrs x && !(x ? _option);

  # The value of each option: what is set, of its type, or its default.
  fill = path: options: given:
    if options ? _option then
      if given != null then
        if options.type.ok given.value then given.value
        else throw "option ${path} is no ${options.type.name}"
      else options.default or (throw "option ${path} has no value")
    else
      builtins.mapAttrs
        (n: o: fill "${path}.${n}" o (
          if given == null || !(given.value ? ${n}) then null else { value = given.value.${n}; }))
        options;

  values = fill "config" evaluated.options { value = config; };

  # The values of the options that are set, and only those: one that isn't may have none.
  set = options: given: value:
    if options ? _option then [ value ]
    else builtins.concatMap
      (n: if options ? ${n} then set options.${n} given.${n} value.${n} else throw "there is no option ${n}")
      (builtins.attrNames given);

  list = path: options:
    if options ? _option then [{
      name = path;
      type = options.type.name;
      default = options.default or null;
      description = options.description or "";
    }]
    else builtins.concatMap (n: list "${path}.${n}" options.${n}) (builtins.attrNames options);

  merge = a: b: a // builtins.mapAttrs (n: v: if a ? ${n} && isSet a.${n} && isSet v then merge a.${n} v else v) b;
  resolve = c:
    if c ? _if then (if c._if then resolve c.content else { })
    else if c ? _merge then builtins.foldl' merge { } (map resolve c._merge)
    else c;
in
{
  config = builtins.deepSeq (set evaluated.options config values) (resolve evaluated.config);
  options = list "config" evaluated.options;
}

// A passage of each domain, with the slider that shows what every memory keeps of it.
{
  const names = Object.keys(data.passages);
  const show = (name) => drawKept(data.passages[name], data.passages[name].listed);
  if (names.length) {
    document.getElementById("memory-tools").append(choice("Domain", names.map((name) => [name, name]), names[0], show));
    show(names[0]);
  }
}

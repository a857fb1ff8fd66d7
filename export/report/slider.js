// The divider: everything left of it is the blurry picture. A range input moves it, so mouse, touch, keyboard and readers work.
for (const slider of document.querySelectorAll(".compare input")) {
  const box = slider.closest(".compare");
  const show = () => {
    box.style.setProperty("--divider", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % blurry, ${100 - slider.value} % deblurred`);
  };
  slider.addEventListener("input", show);
  show();
}
